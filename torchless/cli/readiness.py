"""Checks whether services are ready."""

from __future__ import annotations

from torchless.cli.gateway_api import GatewayClient, GatewayError
from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import TorchlessError

WAIT_S = 2.0
"""Timeout of a check, in seconds."""


async def capability_ready(kind: type[CapabilityClient], address: str) -> bool:
    """Whether the service at `address` (`host:port`) is ready; `kind` is its client."""
    async with kind(address) as client:
        try:
            return await client.ready(CallContext(deadline=Deadline.after(WAIT_S)))
        except TorchlessError:
            return False  # it does not listen yet, or is busy starting


async def gateway_ready(url: str) -> bool:
    """Whether the gateway at `url` answers and every service behind it is ready."""
    async with GatewayClient(url, timeout_s=WAIT_S) as client:
        try:
            return (await client.readiness()).ready
        except GatewayError:
            return False
