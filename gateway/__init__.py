"""The gateway: HTTP APIs that people's clients already speak, in front of the gRPC services. It holds no torch."""
