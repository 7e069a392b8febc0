"""The GPU client: absent fields are None, newer values are unknown, and values that do not fit are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest

from torchless.clients.call import CallContext
from torchless.clients.gpu import AllocationState, EventKind, GPUClient
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceServicer, add_GPUServiceServicer_to_server

Context = grpc.aio.ServicerContext[Any, Any]


class Scripted(GPUServiceServicer):
    """Answers with what the test sets, and records requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.status = pb.Status()
        self.updates: list[pb.WatchStatusResponse] = []

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        return pb.GetStatusResponse(status=self.status)

    async def AllocateGPU(self, request: pb.AllocateGPURequest, context: Context) -> pb.AllocateGPUResponse:  # noqa: N802
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        return pb.AllocateGPUResponse(
            allocation=pb.Allocation(id="1", state=pb.ALLOCATION_STATE_LOST, lost_reason="it fell off the bus")
        )

    async def RenewAllocation(  # noqa: N802
        self, request: pb.RenewAllocationRequest, context: Context
    ) -> pb.RenewAllocationResponse:
        self.requests.append(request)
        return pb.RenewAllocationResponse(allocation=pb.Allocation(id=request.id, pid=7))

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        for update in self.updates:
            yield update


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[GPUClient, Scripted]]:
    server, script = grpc.aio.server(), Scripted()
    add_GPUServiceServicer_to_server(script, server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with GPUClient(f"127.0.0.1:{port}") as client:
            yield client, script
    finally:
        await server.stop(None)


async def test_fields_that_a_device_does_not_report_are_none_and_zeros_are_zero() -> None:
    async with connected() as (client, script):
        script.status = pb.Status(
            available=True,
            devices=[
                pb.Device(uuid="bare"),
                pb.Device(uuid="zero", temperature_c=0, memory_used_mb=0, ecc_corrected=0),
            ],
        )
        bare, zero = (await client.status()).devices
    assert (bare.temperature_c, bare.memory_used_mb, bare.ecc_corrected, bare.mig_enabled) == (None, None, None, None)
    assert (zero.temperature_c, zero.memory_used_mb, zero.ecc_corrected) == (0, 0, 0)


async def test_allocate_leaves_arguments_that_are_not_given_to_the_service() -> None:
    async with connected() as (client, script):
        allocation = await client.allocate(100, "h", context=CallContext(tenant="t"))
        (request,) = script.requests
        assert not any(request.HasField(name) for name in ("ttl_s", "pid", "device_count"))
        assert (request.memory_mb, request.holder, request.tenant) == (100, "h", "")
        assert script.metadata["x-tenant-id"] == "t"
        assert (allocation.state, allocation.lost_reason, allocation.pid) == (
            AllocationState.LOST,
            "it fell off the bus",
            None,
        )
        assert (await client.renew("2")).pid == 7
        assert not script.requests[-1].HasField("ttl_s")


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("memory_mb", {"memory_mb": 2**63}),
        ("memory_mb", {"memory_mb": -(2**63) - 1}),
        ("device_count", {"device_count": 2**31}),
        ("pid", {"pid": 2**63}),
        ("holder", {"holder": "\ud800"}),
        ("device_uuids[1]", {"device_uuids": ["a", "\ud800"]}),
    ],
)
async def test_allocate_refuses_values_that_do_not_fit_and_names_the_field(
    field: str, arguments: dict[str, Any]
) -> None:
    async with GPUClient("127.0.0.1:1") as client:
        with pytest.raises(TorchlessError) as caught:
            await client.allocate(**{"memory_mb": 1, "holder": "h", **arguments})
    assert (caught.value.kind, caught.value.violations[0].field) == (ErrorKind.INVALID_INPUT, field)


async def test_watch_maps_events_and_reports_newer_ones_as_unknown() -> None:
    async with connected() as (client, script):
        reached = pb.Event(
            kind=pb.EVENT_KIND_THRESHOLD_REACHED, threshold=pb.THRESHOLD_TEMPERATURE_C, value=90, limit=85, message="m"
        )
        newer = pb.Event(kind=pb.EventKind.ValueType(77))
        script.updates = [pb.WatchStatusResponse(events=[reached, newer], events_dropped=3)]
        async with aclosing(client.watch()) as updates:
            (update,) = [each async for each in updates]
    first, second = update.events
    assert (first.kind, first.threshold, first.value, first.limit) == (
        EventKind.THRESHOLD_REACHED,
        "temperature_c",
        90,
        85,
    )
    assert (second.kind, second.threshold, second.value) == (EventKind.UNKNOWN, "", None)
    assert update.events_dropped == 3


def test_event_kinds_are_those_of_the_contract() -> None:
    of_the_contract = {name.removeprefix("EVENT_KIND_") for name in pb.EventKind.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert of_the_contract == {kind.name for kind in EventKind} - {"UNKNOWN"}
