"""The GPU bento as a service: leases of many callers and after a kill, lost devices, invalid input."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.gpu.conftest import GPU_PYTHON, PATIENCE_S, Bento, client_of, serving
from tests.integration.gpu.stand_in import GPU, GPU_IS_LOST, Machine
from tests.running_stack import ROOT
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.gpu import SERVICE_NAME, AllocationState, EventKind, GPUClient, StatusUpdate
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceStub

_LIST_SERVICES = b"\x3a\x00"  # grpc.reflection.v1alpha.ServerReflectionRequest{list_services: ""}


async def refusal(call: Any) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught:
        await call
    return caught.value


async def test_status_lists_devices_and_their_memory(client: GPUClient) -> None:
    status = await client.status()
    assert (status.available, status.unavailable_reason) == (True, "")
    assert (status.driver_version, status.cuda_version, status.reserve_mb) == ("570.86.15", "12.8", 100)
    first, second = status.devices
    assert (first.uuid, first.index, first.name, first.healthy) == ("GPU-a", 0, "Stand-in GPU", True)
    assert (first.memory_total_mb, first.memory_used_mb, first.memory_free_mb) == (10_000, 500, 9_500)
    assert (first.memory_allocatable_mb, second.memory_allocatable_mb) == (9_400, 19_400)
    assert (first.temperature_c, first.power_w, first.utilization_percent, first.mig_enabled) == (40, 75.5, 12, None)
    assert [each.uuid for each in await client.devices()] == ["GPU-a", "GPU-b"]


async def test_health_and_reflection_name_the_service(bento: Bento, client: GPUClient) -> None:
    async with grpc.aio.insecure_channel(bento.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE_NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        call = reflect(iter([_LIST_SERVICES]))
        assert SERVICE_NAME.encode() in await call.read()
        call.cancel()


async def test_lease_from_allocation_to_release(client: GPUClient) -> None:
    context = CallContext(tenant="from the metadata")
    lease = await client.allocate(4_000, "trainer", ttl_s=60, exclusive=True, pid=4711, context=context)
    assert [(d.uuid, d.index, d.memory_mb, d.lost) for d in lease.devices] == [("GPU-a", 0, 4_000, False)]
    assert (lease.holder, lease.tenant, lease.state) == ("trainer", "from the metadata", AllocationState.ACTIVE)
    assert (lease.exclusive, lease.pid, lease.expires - lease.created) == (True, 4711, pytest.approx(60))
    device = (await client.devices())[0]
    assert (device.memory_leased_mb, device.memory_allocatable_mb, device.allocatable) == (4_000, 0, False)
    longer = await client.renew(lease.id, ttl_s=600)
    assert longer.expires > lease.expires + 500
    assert (await client.status()).allocations == (longer,)
    assert await client.release(lease.id) == longer
    for call in (client.release(lease.id), client.renew(lease.id)):
        error = await refusal(call)
        assert (error.kind, error.metadata["reason"]) == (ErrorKind.NOT_FOUND, "released")
    assert (await client.status()).allocations == ()


async def test_expired_lease_is_not_found_and_its_memory_is_free(client: GPUClient) -> None:
    lease = await client.allocate(19_400, "short", ttl_s=2)
    error = await refusal(client.allocate(19_000, "next"))
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 2
    await asyncio.sleep(error.retry_after_s)
    error = await refusal(client.renew(lease.id))
    assert (error.kind, error.metadata["reason"]) == (ErrorKind.NOT_FOUND, "expired")
    await client.allocate(19_000, "next")


async def many(bento: Bento, memory_mb: int, key: str) -> tuple[list[str], list[str]]:
    """100 clients in four processes; what they were given, and how they were refused."""
    command = [sys.executable, "-m", "tests.integration.gpu.many_clients", bento.address, "25", str(memory_mb), key]
    running = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE) for _ in range(4)
    ]
    answers = [json.loads((await process.communicate())[0]) for process in running]
    return [id_ for each in answers for id_ in each["given"]], [kind for each in answers for kind in each["refused"]]


async def test_hundred_concurrent_clients_never_lease_more_than_exists(bento: Bento, client: GPUClient) -> None:
    given, refused = await many(bento, 900, "")
    assert len(given) == len(set(given)) == 10 + 21  # 9,400 and 19,400 MiB
    assert refused == ["OVERLOADED"] * 69
    status = await client.status()
    assert {each.id for each in status.allocations} == set(given)
    for device in status.devices:
        assert device.memory_leased_mb <= (device.memory_free_mb or 0) - 100


async def test_hundred_concurrent_repeats_are_one_lease(bento: Bento, client: GPUClient) -> None:
    given, refused = await many(bento, 9_000, "the same")
    assert (len(given), len(set(given)), refused) == (100, 1, [])
    assert [each.id for each in (await client.status()).allocations] == given[:1]
    other = await refusal(client.allocate(9_001, "one of many", idempotency_key="the same"))
    assert other.kind is ErrorKind.ALREADY_EXISTS
    assert (await client.allocate(1, "x", idempotency_key="the same", tenant="another")).id != given[0]


async def test_acknowledged_lease_survives_a_kill(machine: Machine) -> None:
    with serving(machine) as first:
        async with client_of(first) as client:
            released = await client.allocate(10, "gone")
            await client.release(released.id)
            kept = [await client.allocate(100, f"holder {n}", idempotency_key=str(n)) for n in range(5)]
            first.kill()
    with serving(machine) as second:
        async with client_of(second) as client:
            assert list((await client.status()).allocations) == kept
            assert await client.allocate(100, "holder 3", idempotency_key="3") == kept[3]
            assert (await refusal(client.renew(released.id))).metadata["reason"] == "released"


async def test_service_reports_a_missing_driver_until_it_is_installed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, [GPU("GPU-a")])
    machine.tell()
    with serving(machine) as bento:
        async with client_of(bento) as client:
            assert await client.devices() == []
            status = await client.status()
            assert (status.available, status.devices, status.driver_version) == (False, (), "")
            assert "driver is not installed" in status.unavailable_reason
            error = await refusal(client.allocate(100, "h"))
            assert error.kind is ErrorKind.GPU_UNAVAILABLE
            assert "driver is not installed" in error.message
            assert await client.ready()
            assert not (await client.status()).available
            machine.install()

            async def is_there() -> bool:
                return (await client.status()).available

            await until(is_there, bento.log.read_text, within_s=PATIENCE_S)
            assert (await client.allocate(100, "h")).devices[0].uuid == "GPU-a"


async def test_status_reports_a_machine_without_a_gpu(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.install()
    machine.tell()
    with serving(machine) as bento:
        async with client_of(bento) as client:
            assert await client.devices() == []
            assert "lists no GPU" in (await client.status()).unavailable_reason
            assert (await refusal(client.allocate(100, "h"))).kind is ErrorKind.GPU_UNAVAILABLE
            assert await client.ready()


async def test_gpu_that_falls_off_the_bus_loses_its_leases(machine: Machine) -> None:
    with serving(machine) as bento:
        async with client_of(bento) as client, aclosing(client.watch(interval_s=3600)) as updates:
            first = await anext(updates)
            assert (len(first.status.devices), first.events) == (2, ())
            on_a = await client.allocate(5_000, "a")
            on_b = await client.allocate(15_000, "b")
            machine.gpus[0].code = GPU_IS_LOST
            machine.tell()
            update = await until_event(updates, EventKind.ALLOCATION_LOST)
            assert {e.device_uuid for e in update.events if e.kind is EventKind.ALLOCATION_LOST} == {"GPU-a"}
            status = await client.status()
            assert [each.uuid for each in status.devices] == ["GPU-b"]
            assert [(each.uuid, each.reason) for each in status.lost_devices] == [("GPU-a", "it fell off the bus")]
            assert {each.id: each.state for each in status.allocations} == {
                on_a.id: AllocationState.LOST,
                on_b.id: AllocationState.ACTIVE,
            }
            assert (await refusal(client.renew(on_a.id))).kind is ErrorKind.GPU_UNAVAILABLE
            assert (await client.allocate(100, "elsewhere")).devices[0].uuid == "GPU-b"

            machine.gpus[1].code = GPU_IS_LOST
            machine.tell()
            error = await refusal(client.allocate(100, "nowhere"))
            assert error.kind is ErrorKind.GPU_UNAVAILABLE
            assert await client.devices() == []
            assert await client.ready()

            machine.gpus[0].code = 0
            machine.tell()
            await until_event(updates, EventKind.DEVICE_ADDED)
            assert (await client.release(on_a.id)).state is AllocationState.LOST
            assert (await client.allocate(9_000, "again")).devices[0].uuid == "GPU-a"


async def until_event(updates: Any, kind: EventKind) -> StatusUpdate:
    async with asyncio.timeout(PATIENCE_S):
        async for update in updates:
            if kind in [event.kind for event in update.events]:
                assert isinstance(update, StatusUpdate)
                return update
    pytest.fail("the stream ended")


async def test_hanging_driver_stops_only_new_leases(machine: Machine) -> None:
    machine.sleep_ms = 4_000
    machine.tell()
    with serving(machine, driver__timeout_s="0.5") as bento:
        async with client_of(bento) as client:  # ready, though the driver has not answered yet
            machine.sleep_ms = 0
            machine.tell()

            async def is_there() -> bool:
                return (await client.status()).available

            await until(is_there, bento.log.read_text, within_s=PATIENCE_S)
            lease = await client.allocate(100, "h")
            machine.sleep_ms = 4_000
            machine.tell()

            async def hangs() -> bool:
                return "does not respond" in (await client.status()).unavailable_reason

            await until(hangs, bento.log.read_text, within_s=PATIENCE_S)
            error = await refusal(client.allocate(100, "h"))
            assert (error.kind, "does not respond" in error.message) == (ErrorKind.GPU_UNAVAILABLE, True)
            assert (await client.renew(lease.id)).state is AllocationState.ACTIVE
            machine.sleep_ms = 0
            machine.tell()
            await until(is_there, bento.log.read_text, within_s=PATIENCE_S)
            assert [each.state for each in (await client.status()).allocations] == [AllocationState.ACTIVE]


async def test_thresholds_are_reported_and_counted(machine: Machine) -> None:
    with serving(machine) as bento:
        async with client_of(bento) as client, aclosing(client.watch(interval_s=3600)) as updates:
            await anext(updates)
            machine.gpus[1].celsius = 92
            machine.tell()
            (event,) = (await until_event(updates, EventKind.THRESHOLD_REACHED)).events
            assert (event.device_uuid, event.threshold, event.value, event.limit) == (
                "GPU-b",
                "temperature_c",
                92,
                85,
            )
            shown = await metrics(bento)
            assert 'torchless_gpu_threshold_reached{device="GPU-b",threshold="temperature_c"} 1.0' in shown
            assert 'torchless_gpu_thresholds_reached_total{threshold="temperature_c"} 1.0' in shown
            assert 'torchless_gpu_temperature_celsius{device="GPU-b"} 92.0' in shown
            machine.gpus.pop()
            machine.tell()
            await until_event(updates, EventKind.DEVICE_LOST)
            shown = await metrics(bento)
            assert "GPU-b" not in shown
            assert "torchless_gpu_lost_devices 1.0" in shown
            assert 'torchless_gpu_memory_used_bytes{device="GPU-a"} 5.24288e+08' in shown


async def metrics(bento: Bento) -> str:
    url = f"http://127.0.0.1:{bento.metrics_port}/metrics"
    return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())


async def test_status_is_sent_at_the_interval_with_a_new_reading(client: GPUClient) -> None:
    async with aclosing(client.watch(interval_s=0.1)) as updates, asyncio.timeout(PATIENCE_S):
        seen = [await anext(updates) for _ in range(4)]
    assert [update.events for update in seen] == [()] * 4
    assert seen[-1].status.read_at > seen[0].status.read_at


async def test_allocatable_memory_accounts_for_strangers_and_holders(machine: Machine) -> None:
    with serving(machine) as bento:
        async with client_of(bento) as client:
            await client.allocate(4_000, "holder", pid=77)
            await client.allocate(1_000, "without a process", device_uuids=["GPU-a"])
            assert await allocatable(client) == 4_400
            machine.gpus[0].used_mb = 500 + 3_000
            machine.processes = [("GPU-a", 77, 3_000)]
            machine.tell()
            await client.allocate(1, "look again", device_uuids=["GPU-b"])
            assert await allocatable(client) == 4_400
            machine.gpus[0].used_mb = 500 + 3_000 + 2_000
            machine.processes = [("GPU-a", 77, 3_000), ("GPU-a", 99, 2_000)]
            machine.tell()
            await client.allocate(1, "look again", device_uuids=["GPU-b"])
            assert await allocatable(client) == 2_400


async def allocatable(client: GPUClient) -> int:
    return (await client.devices())[0].memory_allocatable_mb


@pytest.mark.parametrize(
    ("arguments", "kind", "field"),
    [
        ({"memory_mb": 0}, ErrorKind.INVALID_INPUT, "memory_mb"),
        ({"memory_mb": -1}, ErrorKind.INVALID_INPUT, "memory_mb"),
        ({"memory_mb": 2**64}, ErrorKind.INVALID_INPUT, "memory_mb"),
        ({"memory_mb": 19_901}, ErrorKind.INPUT_TOO_LARGE, "memory_mb"),
        ({"memory_mb": 15_000, "device_count": 2}, ErrorKind.INPUT_TOO_LARGE, "device_count"),
        ({"device_count": -3}, ErrorKind.INVALID_INPUT, "device_count"),
        ({"holder": ""}, ErrorKind.INVALID_INPUT, "holder"),
        ({"holder": "h" * 300}, ErrorKind.INVALID_INPUT, "holder"),
        ({"holder": "\ud800"}, ErrorKind.INVALID_INPUT, "holder"),
        ({"ttl_s": 0}, ErrorKind.INVALID_INPUT, "ttl_s"),
        ({"ttl_s": float("inf")}, ErrorKind.INVALID_INPUT, "ttl_s"),
        ({"ttl_s": float("nan")}, ErrorKind.INVALID_INPUT, "ttl_s"),
        ({"idempotency_key": "k" * 300}, ErrorKind.INVALID_INPUT, "idempotency_key"),
        ({"pid": -1}, ErrorKind.INVALID_INPUT, "pid"),
        ({"device_uuids": ["GPU-x"]}, ErrorKind.NOT_FOUND, None),
    ],
)
async def test_invalid_field_is_named_and_the_next_request_works(
    client: GPUClient, arguments: dict[str, Any], kind: ErrorKind, field: str | None
) -> None:
    error = await refusal(client.allocate(**{"memory_mb": 100, "holder": "h", **arguments}))
    assert (error.kind, error.violations[0].field if error.violations else None) == (kind, field)
    assert (await client.status()).allocations == ()
    assert (await client.allocate(100, "h")).state is AllocationState.ACTIVE


async def test_invalid_renewals_and_intervals_are_refused(client: GPUClient) -> None:
    lease = await client.allocate(100, "h")
    assert (await refusal(client.renew(lease.id, ttl_s=-1))).kind is ErrorKind.INVALID_INPUT
    for unknown in ("", "nothing", "x" * 100_000):
        error = await refusal(client.renew(unknown))
        assert (error.kind, error.metadata["reason"]) == (ErrorKind.NOT_FOUND, "unknown")
        assert len(error.message) < 100
    for interval_s in (0.0, -1.0, float("nan"), 1e9):
        assert (await refusal(anext(client.watch(interval_s=interval_s)))).kind is ErrorKind.INVALID_INPUT
    assert (await client.status()).allocations == (lease,)


async def test_watchers_above_the_limit_are_refused_until_one_leaves(machine: Machine) -> None:
    with serving(machine, watch__max_watchers="1") as bento:
        async with client_of(bento) as client:
            async with aclosing(client.watch()) as first:
                await anext(first)
                assert (await refusal(anext(client.watch()))).kind is ErrorKind.OVERLOADED

            async def has_room() -> bool:
                async with aclosing(client.watch()) as again:
                    try:
                        return bool((await anext(again)).status.available)
                    except TorchlessError:
                        return False

            await until(has_room, bento.log.read_text, within_s=PATIENCE_S)


async def test_watcher_that_does_not_read_blocks_no_one_else(bento: Bento, client: GPUClient) -> None:
    async with grpc.aio.insecure_channel(bento.address) as channel:
        call = GPUServiceStub(channel).WatchStatus(pb.WatchStatusRequest(interval_s=0.05))  # never read
        for _ in range(50):
            lease = await client.allocate(100, "h")
            await client.release(lease.id)
        call.cancel()
    assert (await client.status()).allocations == ()


async def test_watchers_do_not_delay_the_shutdown(machine: Machine) -> None:
    with serving(machine, drain_grace_s="3600") as bento:
        async with client_of(bento) as client, aclosing(client.watch(interval_s=3600)) as updates:
            await anext(updates)
            bento.process.send_signal(signal.SIGTERM)
            with pytest.raises(TorchlessError) as caught:
                async with asyncio.timeout(PATIENCE_S):
                    await anext(updates)
            assert caught.value.kind is ErrorKind.UNREACHABLE
        assert await asyncio.to_thread(bento.process.wait, PATIENCE_S) == 0


async def test_gpu_service_loads_no_torch() -> None:
    look = "import bentos.gpu.service, sys; print({'torch', 'transformers', 'numpy.random'} & sys.modules.keys())"
    process = await asyncio.create_subprocess_exec(
        str(GPU_PYTHON), "-c", look, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0].decode().strip() == "set()"


@dataclass
class RealMachine(Machine):
    """The machine that the tests run on, with whatever driver it has."""

    @property
    def environment(self) -> dict[str, str]:
        return {}


@pytest.mark.gpu
async def test_real_gpu_is_listed_and_leased(tmp_path: Path) -> None:
    with serving(RealMachine(tmp_path)) as bento:
        async with client_of(bento) as client:
            status = await client.status()
            if not status.available:
                pytest.skip(status.unavailable_reason)
            assert status.driver_version
            room = max(status.devices, key=lambda device: device.memory_allocatable_mb)
            assert room.memory_total_mb is not None
            assert 0 < room.memory_allocatable_mb <= room.memory_total_mb - status.reserve_mb
            lease = await client.allocate(64, "test", device_uuids=[room.uuid])
            assert [device.uuid for device in lease.devices] == [room.uuid]
            held = next(device for device in await client.devices() if device.uuid == room.uuid)
            assert held.memory_leased_mb == 64
            error = await refusal(client.allocate(room.memory_total_mb + 1, "test", device_uuids=[room.uuid]))
            assert error.kind is ErrorKind.INPUT_TOO_LARGE
            await client.release(lease.id)


async def test_a_second_service_on_the_same_port_ends_and_says_why(
    machine: Machine, client: GPUClient, bento: Bento
) -> None:
    port = int(bento.address.rpartition(":")[2])
    with serving(machine, port=port) as second:
        assert await asyncio.to_thread(second.process.wait, 60) == 1
        assert f"port {port} is used by another program; choose another with --port" in second.log.read_text()
    assert await client.ready()
