"""A lease on GPU memory, taken before a model is loaded and released on exit.

With the address of a GPU service, a bento leases its memory, so that models of several processes do not run each other
out of memory. Without an address it takes no lease and uses the devices that it finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from pydantic import Field, model_validator

from torchless.clients.gpu import Allocation, AllocationState, GPUClient
from torchless.clients.settings import BreakerSettings, ClientSettings, RetrySettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsGroup

logger = logging.getLogger(__name__)

_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_LONGEST_PAUSE_S = 5.0
_RELEASE_TIMEOUT_S = 5.0


class LeaseSettings(SettingsGroup):
    """A lease on GPU memory."""

    address: str = ""
    """Address of the GPU service: `host:port`, or any gRPC target; empty: no lease is taken."""
    memory_mb: int = Field(default=0, ge=0)
    """Memory leased on each device, in MiB: weights, the largest batch and CUDA's own. Required with `address`."""
    device_count: int = Field(default=1, ge=1, le=256)
    """Number of devices leased."""
    exclusive: bool = False
    """Whether the devices accept no other lease."""
    holder: str = Field(default="", max_length=256)
    """Name of the holder in the list of leases; empty: the service's name."""
    ttl_s: float = Field(default=60.0, gt=0)
    """Time to live of the lease if this process dies, in seconds. The lease is renewed after a third of it."""
    wait_s: float = Field(default=120.0, ge=0)
    """Longest time to wait for the GPU service and for free memory, in seconds."""
    deadline_s: float = Field(default=10.0, gt=0, le=600)
    """Deadline of one call to the GPU service, in seconds."""
    send_pid: bool = True
    """Whether to send the process id, so that the model's memory counts towards the lease and not in addition to it.
    Turn it off if the driver sees another id, as in a container with a separate process namespace."""

    @model_validator(mode="after")
    def _memory_is_given(self) -> Self:
        if self.address and self.memory_mb < 1:
            raise ValueError("memory_mb: must be at least 1 MiB when `address` is set")
        return self


class DeviceLease:
    """The lease of one process.

    Args:
        settings: The lease and the GPU service.
        holder: Name of the holder, unless the settings have one.
    """

    def __init__(self, settings: LeaseSettings, holder: str) -> None:
        self._settings = settings
        self._holder = settings.holder or holder
        self._client: GPUClient | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.allocation: Allocation | None = None
        """The current lease, if any."""

    async def take(self, report: Callable[[str], None] = lambda message: None) -> None:
        """Takes the lease, makes only its devices visible to CUDA in this process, and keeps it renewed.

        Call it before torch is imported, because CUDA reads `CUDA_VISIBLE_DEVICES` once, at its first use.

        Args:
            report: Takes what it waits for.

        Raises:
            TorchlessError: At once, if waiting does not help, such as GPU_UNAVAILABLE; else after `wait_s`.
        """
        if not self._settings.address:
            return
        self._client = GPUClient(_client_settings(self._settings))
        self.allocation = await self._wait_for_lease(self._client, report)
        os.environ[_VISIBLE_DEVICES] = ",".join(device.uuid for device in self.allocation.devices)
        logger.info("leased %d MiB on each of %s", self._settings.memory_mb, os.environ[_VISIBLE_DEVICES])
        self._renewing = asyncio.create_task(self._keep(self._client))

    async def release(self) -> None:
        """Ends the lease. Never raises: a lease that cannot be released expires within `ttl_s`."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
            self._renewing = None
        client, self._client = self._client, None
        held, self.allocation = self.allocation, None
        if client is None:
            return
        try:
            if held is not None:
                async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                    await client.release(held.id)
        except (TorchlessError, TimeoutError) as error:
            logger.warning("the lease could not be released and will expire: %s", error)
        finally:
            await client.close()

    async def _wait_for_lease(self, client: GPUClient, report: Callable[[str], None]) -> Allocation:
        # One key for all attempts: an attempt whose answer was lost may have made the lease.
        key = uuid.uuid4().hex
        until = time.monotonic() + self._settings.wait_s
        pause_s = 0.1
        while True:
            try:
                return await self._allocate(client, key)
            except TorchlessError as error:
                left_s = until - time.monotonic()
                if not error.kind.policy.transient or left_s <= 0:
                    raise
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                logger.info("no lease yet, retrying: %s", error.message)
                report(f"the service waits for a lease on GPU memory: {error.message}")
                # The hint is when a lease in the way expires; it may be released earlier.
                await asyncio.sleep(min(pause_s, error.retry_after_s or pause_s, left_s))

    async def _allocate(self, client: GPUClient, key: str, *, device_uuids: tuple[str, ...] = ()) -> Allocation:
        own = self._settings
        allocation = await client.allocate(
            own.memory_mb,
            self._holder,
            device_count=own.device_count,
            exclusive=own.exclusive,
            ttl_s=own.ttl_s,
            idempotency_key=key,
            pid=os.getpid() if own.send_pid else None,
            device_uuids=device_uuids,
        )
        if allocation.state is AllocationState.LOST:  # since an earlier attempt whose answer was lost
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, f"the leased device is lost: {allocation.lost_reason}")
        return allocation

    async def _keep(self, client: GPUClient) -> None:
        """Renews until cancelled."""
        pause_s = self._settings.ttl_s / 3
        reported_lost = False
        while self.allocation is not None:
            await asyncio.sleep(pause_s)
            try:
                await self._renew(client, self.allocation)
            except TorchlessError as error:
                lost = error.kind is ErrorKind.GPU_UNAVAILABLE
                if lost and not reported_lost:
                    logger.error("the lease is LOST, perhaps with the model's device: %s", error.message)
                if not lost:
                    logger.warning("the lease could not be renewed, retrying: %s", error.message)
                reported_lost = lost
                pause_s = self._settings.ttl_s / 10
            else:
                reported_lost = False
                pause_s = self._settings.ttl_s / 3

    async def _renew(self, client: GPUClient, held: Allocation) -> None:
        try:
            self.allocation = await client.renew(held.id)
        except TorchlessError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            logger.warning("the lease no longer exists, taking another: %s", error.message)
            # On the same devices, because this process uses them already.
            uuids = tuple(device.uuid for device in held.devices)
            self.allocation = await self._allocate(client, uuid.uuid4().hex, device_uuids=uuids)


def _client_settings(settings: LeaseSettings) -> ClientSettings:
    return ClientSettings(
        address=settings.address,
        deadline_s=settings.deadline_s,
        # The lease waits for a service that may start later, with its own retries, so the breaker must not open.
        breaker=BreakerSettings(failures=1000),
        retry=RetrySettings(attempts=1),
    )
