"""A lease on a GPU, taken before a model is loaded and given back on exit.

A bento that is set up with the address of a GPU service asks it for room, so that models of several processes do not
crowd each other off a device. Without an address nothing is asked, and the bento uses what it finds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from contextlib import suppress
from typing import Self

from pydantic import Field, model_validator

from torchless.clients.gpu import Allocation, AllocationState, GPUClient
from torchless.clients.settings import BreakerSettings, ClientSettings, RetrySettings
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsGroup

logger = logging.getLogger(__name__)

_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_WORTH_WAITING = frozenset({ErrorKind.UNREACHABLE, ErrorKind.OVERLOADED, ErrorKind.DEADLINE})
_LONGEST_PAUSE_S = 5.0
_GIVE_BACK_S = 5.0


class LeaseSettings(SettingsGroup):
    """A lease on GPU memory."""

    address: str = ""
    """Address of the GPU service: `host:port`, or any gRPC target; empty: no lease is taken."""
    memory_mb: int = Field(default=0, ge=0)
    """Memory leased on each device, in MiB: weights, the largest batch and CUDA's own. Required with `address`."""
    device_count: int = Field(default=1, ge=1, le=256)
    """Devices leased."""
    exclusive: bool = False
    """Whether the devices accept no other lease."""
    holder: str = Field(default="", max_length=256)
    """Name of the holder in the list of leases; empty: the service's name."""
    ttl_s: float = Field(default=60.0, gt=0)
    """Time after which the lease ends if this process dies, in seconds. It is renewed at a third of it."""
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
            raise ValueError("memory_mb: say how much to lease, at least 1 MiB")
        return self


class DeviceLease:
    """One process's lease, from before its model is loaded until it leaves.

    Args:
        settings: What is leased, from whom.
        holder: Name of the service, where the settings have none.
    """

    def __init__(self, settings: LeaseSettings, holder: str) -> None:
        self._settings = settings
        self._holder = settings.holder or holder
        self._client: GPUClient | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.allocation: Allocation | None = None
        """What is held; None: nothing."""

    async def take(self) -> None:
        """Takes the lease, makes its devices the only ones that CUDA sees in this process, and keeps it from now on.

        Call it before torch is imported: CUDA reads `CUDA_VISIBLE_DEVICES` once, as soon as torch asks it for anything.

        Raises:
            TorchlessError: GPU_UNAVAILABLE and what the settings are to blame for, at once; UNREACHABLE, OVERLOADED or
                DEADLINE when it did not come within `wait_s`.
        """
        if not self._settings.address:
            return
        self._client = GPUClient(_client_settings(self._settings))
        self.allocation = await self._wait_for_room(self._client)
        os.environ[_VISIBLE_DEVICES] = ",".join(device.uuid for device in self.allocation.devices)
        logger.info("leased %d MiB on each of %s", self._settings.memory_mb, os.environ[_VISIBLE_DEVICES])
        self._renewing = asyncio.create_task(self._keep(self._client))

    async def give_back(self) -> None:
        """Ends the lease. Never raises: what cannot be given back now ends by itself within `ttl_s`."""
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
                async with asyncio.timeout(_GIVE_BACK_S):
                    await client.release(held.id)
        except (TorchlessError, TimeoutError) as error:
            logger.warning("the lease could not be given back and ends by itself: %s", error)
        finally:
            await client.close()

    async def _wait_for_room(self, client: GPUClient) -> Allocation:
        # One key for all tries: one whose answer got lost has leased already.
        key = uuid.uuid4().hex
        until = time.monotonic() + self._settings.wait_s
        pause_s = 0.1
        while True:
            try:
                return await self._allocate(client, key)
            except TorchlessError as error:
                left_s = until - time.monotonic()
                if error.kind not in _WORTH_WAITING or left_s <= 0:
                    raise
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                logger.info("no lease yet, trying again: %s", error.message)
                # The hint is when a lease in the way ends at the latest; it may be given back before.
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
        if allocation.state is AllocationState.LOST:  # between a try whose answer got lost and this one
            raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, f"the leased device is gone: {allocation.lost_reason}")
        return allocation

    async def _keep(self, client: GPUClient) -> None:
        """Renews until cancelled."""
        pause_s = self._settings.ttl_s / 3
        told_lost = False
        while self.allocation is not None:
            await asyncio.sleep(pause_s)
            try:
                await self._renew(client, self.allocation)
            except TorchlessError as error:
                lost = error.kind is ErrorKind.GPU_UNAVAILABLE
                if lost and not told_lost:
                    logger.error("the lease is LOST, and maybe the model's device with it: %s", error.message)
                if not lost:
                    logger.warning("the lease could not be renewed, trying again: %s", error.message)
                told_lost = lost
                pause_s = self._settings.ttl_s / 10
            else:
                told_lost = False
                pause_s = self._settings.ttl_s / 3

    async def _renew(self, client: GPUClient, held: Allocation) -> None:
        try:
            self.allocation = await client.renew(held.id)
        except TorchlessError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            logger.warning("the lease is gone, taking another: %s", error.message)
            # On the same devices: this process is on them already.
            uuids = tuple(device.uuid for device in held.devices)
            self.allocation = await self._allocate(client, uuid.uuid4().hex, device_uuids=uuids)


def _client_settings(settings: LeaseSettings) -> ClientSettings:
    return ClientSettings(
        address=settings.address,
        deadline_s=settings.deadline_s,
        # It waits for a service that may start later and tries again by itself, so no breaker must keep it away.
        breaker=BreakerSettings(failures=1000),
        retry=RetrySettings(attempts=1),
    )
