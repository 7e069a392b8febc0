"""The GPU API. Answers have the fields of `torchless.clients.gpu`'s dataclasses, which have those of the contract."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from gateway.apis.field_types import STOPS_AT_FIRST_ERROR, AnswerModel, NullIsAbsent, OneMessage, RequestModel
from torchless.clients.gpu import GPUDevice


class AllocationRequest(RequestModel):
    """Memory to lease."""

    memory_mb: int
    """Memory wanted on each device, in MiB, at least 1."""
    holder: str
    """Who asks, for people and logs: 1 to 256 characters."""
    device_count: int | None = None
    """Devices wanted, all of them or none. Absent: 1."""
    exclusive: Annotated[bool, *NullIsAbsent] = False
    """Only devices without any lease, and nobody else on them afterwards."""
    tenant: Annotated[None, OneMessage("must be absent: the lease belongs to the tenant of the API key")] = None
    """Not accepted: the lease belongs to the tenant of the API key."""
    ttl_s: FiniteFloat | None = None
    """How long the lease runs unless it is renewed, in seconds. Absent: the GPU service's default."""
    idempotency_key: Annotated[str, *NullIsAbsent] = ""
    """While its lease is there, the same key with an equal request answers that lease again."""
    pid: int | None = None
    """The holder's process id, as the driver on the GPU's machine sees it."""
    device_uuids: Annotated[list[str], STOPS_AT_FIRST_ERROR, Field(max_length=1024), *NullIsAbsent] = Field(default=[])
    """Only these devices. Absent or empty: any."""


class RenewalRequest(RequestModel):
    """How long a lease runs on."""

    ttl_s: FiniteFloat | None = None
    """Seconds from now on. Absent: as long as before."""


class WatchQuery(RequestModel):
    """What `GET /v1/gpu/watch` may be given."""

    interval_s: FiniteFloat = 10.0
    """Seconds after which the status comes though nothing changed. Absent: the GPU service's default."""


class Devices(AnswerModel):
    """The devices that are there."""

    devices: list[GPUDevice]
    """By index, a GPU before its MIG instances; empty without a GPU or its driver."""
