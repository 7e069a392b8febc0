"""What every bento is served with; the only code that touches BentoML's legacy service and its gRPC server."""
