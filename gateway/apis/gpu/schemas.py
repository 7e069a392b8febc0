"""The GPU API. Responses have the fields of the dataclasses of `torchless.clients.gpu`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, NullIsAbsent, OneMessage, RequestModel
from torchless.clients.gpu import GPUDevice


class AllocationRequest(RequestModel):
    """Memory to lease."""

    memory_mb: int
    """Memory to lease on each device, in MiB, at least 1."""
    holder: str
    """Name of the holder, for people and logs: 1 to 256 characters."""
    device_count: int | None = None
    """Number of devices, all of them or none. Absent: 1."""
    exclusive: Annotated[bool, *NullIsAbsent] = False
    """Use only devices without a lease, and accept no other lease on them."""
    tenant: Annotated[None, OneMessage("must be absent: the lease belongs to the tenant of the API key")] = None
    """Not accepted: the lease belongs to the tenant of the API key."""
    ttl_s: FiniteFloat | None = None
    """Duration of the lease unless it is renewed, in seconds. Absent: the GPU service's default."""
    idempotency_key: Annotated[str, *NullIsAbsent] = ""
    """While its lease is in force, an equal request with the same key returns that lease."""
    pid: int | None = None
    """The holder's process id, as the driver on the GPU's machine sees it."""
    device_uuids: Annotated[list[str], STOPS_AT_FIRST_ERROR, Field(max_length=1024), *NullIsAbsent] = Field(default=[])
    """Use only these devices. Absent or empty: any."""


class RenewalRequest(RequestModel):
    """Renewal of a lease."""

    ttl_s: FiniteFloat | None = None
    """Duration from now, in seconds. Absent: as before."""


class WatchQuery(RequestModel):
    """Query parameters of `GET /v1/gpu/watch`."""

    interval_s: FiniteFloat = 10.0
    """Seconds after which the status is sent without a change. Absent: the GPU service's default."""


class Devices(AnswerModel):
    """The present devices."""

    devices: list[GPUDevice]
    """By index, a GPU before its MIG instances; empty without a GPU or its driver."""
