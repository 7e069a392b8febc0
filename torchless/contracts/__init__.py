"""The gRPC contracts of the services, and the closed list of error kinds."""
