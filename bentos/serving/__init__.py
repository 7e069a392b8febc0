"""Serving for every bento; the only code that touches BentoML's legacy service and its gRPC server."""
