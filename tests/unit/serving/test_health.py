"""Health checks over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bentos.serving.health import HealthInterceptor
from bentos.serving.readiness import LEAVING, Readiness
from tests.waiting import until
from torchless.clients.translate import translate
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.grpc_status import HEALTH_REASON, from_status

NAME = "torchless.some.v1.SomeService"
SERVICE_UNKNOWN, SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
BROKEN = TorchlessError(ErrorKind.GPU_UNAVAILABLE, "the device is gone")
PATIENCE_S = 20


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Any, Readiness]]:
    """A server that has gRPC's own health on it, as BentoML's has; a stub of it, and what it tells."""
    readiness = Readiness()
    server = grpc.aio.server(interceptors=[HealthInterceptor(NAME, readiness)])
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(PATIENCE_S):
            yield health_pb2_grpc.HealthStub(channel), readiness
    finally:
        await server.stop(None)


def request(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


async def end_of(call: Any) -> TorchlessError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return translate(caught.value, "some")


async def until_watched_by(count: int, readiness: Readiness) -> None:
    await until(lambda: readiness.listeners == count, lambda: f"{readiness.listeners} watch, not {count}", within_s=10)


@pytest.mark.parametrize("name", [NAME, ""])
async def test_health_watchers_see_every_change_once(name: str) -> None:
    async with serving() as (stub, readiness):
        watch = stub.Watch(request(name))
        assert (await watch.read()).status == NOT_SERVING
        readiness.become_ready()
        assert (await watch.read()).status == SERVING
        readiness.become_ready()
        readiness.fail(BROKEN)
        assert (await watch.read()).status == NOT_SERVING
        readiness.fail(BROKEN)
        readiness.leave()
        assert (await end_of(watch)).kind is ErrorKind.UNREACHABLE


async def test_shutdown_ends_health_watches_with_a_retry_hint() -> None:
    async with serving() as (stub, readiness):
        readiness.become_ready()
        watch = stub.Watch(request(NAME))
        assert (await watch.read()).status == SERVING
        readiness.drain()
        readiness.leave()
        assert (await watch.read()).status == NOT_SERVING
        error = await end_of(watch)
        assert (error.kind, error.retry_after_s) == (ErrorKind.UNREACHABLE, 1.0)
        late = stub.Watch(request(NAME))
        assert (await late.read()).status == NOT_SERVING
        assert (await end_of(late)).kind is ErrorKind.UNREACHABLE


async def test_draining_service_is_unhealthy_and_still_serves() -> None:
    async with serving() as (stub, readiness):
        readiness.drain()
        readiness.become_ready()  # the model was loaded after SIGTERM had come
        readiness.check()
        assert (await stub.Check(request(NAME))).status == NOT_SERVING
        watch = stub.Watch(request(NAME))
        assert (await watch.read()).status == NOT_SERVING


async def reason_of(stub: Any) -> TorchlessError | None:
    """The reason in the trailing metadata of a health check."""
    call = stub.Check(request(NAME))
    await call
    found = [value for key, value in await call.trailing_metadata() if key == HEALTH_REASON]
    return from_status(Status.FromString(found[0])) if found else None


async def test_health_check_carries_the_reason_while_the_service_is_not_ready() -> None:
    async with serving() as (stub, readiness):
        reason = await reason_of(stub)
        assert reason is not None
        assert reason.kind is ErrorKind.LOADING
        readiness.loading("the service waits for a friend")
        reason = await reason_of(stub)
        assert reason is not None
        assert reason.message == "the service waits for a friend; retry shortly"
        readiness.become_ready()
        assert await reason_of(stub) is None
        readiness.loading("too late")
        assert readiness.ready
        readiness.drain()
        reason = await reason_of(stub)
        assert reason is not None
        assert reason.message == LEAVING.message
        readiness.fail(BROKEN)
        reason = await reason_of(stub)
        assert reason is not None
        assert (reason.kind, reason.message) == (BROKEN.kind, BROKEN.message)


async def test_only_a_lasting_reason_is_a_failure() -> None:
    readiness = Readiness()
    assert readiness.failure is None
    readiness.become_ready()
    assert readiness.failure is None
    readiness.fail(BROKEN)
    assert readiness.failure is not None
    readiness.leave()
    assert readiness.failure is None


async def test_disconnected_health_watcher_does_not_affect_others() -> None:
    async with serving() as (stub, readiness):
        leaving, staying = stub.Watch(request(NAME)), stub.Watch(request(NAME))
        assert [(await each.read()).status for each in (leaving, staying)] == [NOT_SERVING] * 2
        leaving.cancel()
        await until_watched_by(1, readiness)
        readiness.become_ready()
        assert (await staying.read()).status == SERVING


async def test_change_on_another_thread_reaches_health_watchers() -> None:
    async with serving() as (stub, readiness):
        watch = stub.Watch(request(""))
        assert (await watch.read()).status == NOT_SERVING
        await asyncio.to_thread(readiness.become_ready)
        assert (await watch.read()).status == SERVING


async def test_unknown_service_name_is_service_unknown() -> None:
    async with serving() as (stub, readiness):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(request("torchless.other.v1.OtherService"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(request("torchless.other.v1.OtherService"))
        assert (await watch.read()).status == SERVICE_UNKNOWN
        readiness.leave()
        assert (await end_of(watch)).kind is ErrorKind.UNREACHABLE


async def test_disconnected_health_watcher_is_removed() -> None:
    async with serving() as (stub, readiness):
        calls = [stub.Watch(request(NAME)) for _ in range(50)]
        for call in calls:
            await call.read()
        assert readiness.listeners == 50
        for call in calls:
            call.cancel()
        await until_watched_by(0, readiness)
