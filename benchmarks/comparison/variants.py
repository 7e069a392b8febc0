"""The compared variants."""

from __future__ import annotations

CLIENT = "EmbeddingClient"
MISS = "cache, miss"
HIT = "cache, hit"
CLIENT_LAYER = (CLIENT, MISS, HIT)
"""The clients, against a service that answers at once."""
GRPC = "embedding service, gRPC"
GATEWAY = "gateway, base64"
EMBEDDING = (GRPC, GATEWAY)
"""The embedding service and the gateway, with the default model and without the gateway's cache."""
