"""The clients measured by themselves, against a gRPC service that answers at once."""
