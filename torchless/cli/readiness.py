"""Asks services whether they are ready."""

from __future__ import annotations

from torchless.cli.gateway_api import GatewayClient, GatewayError
from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import TorchlessError

WAIT_S = 2.0
"""How long a service has for its answer, in seconds."""


async def capability_ready(kind: type[CapabilityClient], address: str) -> bool:
    """Whether the service at `address` (`host:port`) is ready; `kind` is the client that calls it."""
    async with kind(address) as client:
        try:
            return await client.ready(CallContext(deadline=Deadline.after(WAIT_S)))
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
