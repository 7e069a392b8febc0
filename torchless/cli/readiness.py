"""Asks services whether they are ready."""

from __future__ import annotations

from torchless.cli.gateway_api import GatewayClient, GatewayError
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import TorchlessError

WAIT_S = 2.0
"""How long a service has for its answer, in seconds."""


async def embedding_ready(address: str) -> bool:
    """Whether the embedding service at `address` (`host:port`) has its model loaded and serves."""
    async with EmbeddingClient(address) as client:
        try:
            return await client.ready(CallContext(deadline_s=WAIT_S))
        except TorchlessError:
            # Nobody there yet, or too busy starting: the next question will tell.
            return False


async def gateway_ready(url: str) -> bool:
    """Whether the gateway at `url` is up and every service behind it is ready."""
    async with GatewayClient(url, timeout_s=WAIT_S) as client:
        try:
            return (await client.readiness()).ready
        except GatewayError:
            return False
