"""The interceptor for services that work without a device, and for watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest

from bentos.serving.interceptor import CallInterceptor
from bentos.serving.readiness import Readiness
from torchless.clients.gpu import GPUClient
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.gpu.v1 import gpu_pb2 as pb
from torchless.contracts.gpu.v1.gpu_pb2_grpc import GPUServiceServicer, add_GPUServiceServicer_to_server

Context = grpc.aio.ServicerContext[Any, Any]


class WithoutDevice(GPUServiceServicer):
    """Has no device; its stream says one thing and then nothing more."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        return pb.GetStatusResponse()

    async def AllocateGPU(self, request: pb.AllocateGPURequest, context: Context) -> pb.AllocateGPUResponse:  # noqa: N802
        raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, "there is none")

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        try:
            yield pb.WatchStatusResponse()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[GPUClient, Readiness, WithoutDevice]]:
    readiness, servicer = Readiness(), WithoutDevice()
    readiness.become_ready()
    server = grpc.aio.server(interceptors=[CallInterceptor(readiness, **options)])
    add_GPUServiceServicer_to_server(servicer, server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with GPUClient(f"127.0.0.1:{port}") as client:
            yield client, readiness, servicer
    finally:
        await server.stop(None)


async def kind_of(call: Any) -> ErrorKind:
    with pytest.raises(TorchlessError) as caught:
        await call
    return caught.value.kind


@pytest.mark.parametrize("final", [True, False])
async def test_gpu_unavailable_stops_the_service_only_if_a_lost_device_is_final(final: bool) -> None:
    async with serving(lost_device_is_final=final) as (client, readiness, _):
        assert await kind_of(client.allocate(1, "h")) is ErrorKind.GPU_UNAVAILABLE
        assert readiness.ready is not final


async def test_watchers_see_the_shutdown() -> None:
    async with (
        serving(watches=frozenset({"WatchStatus"})) as (client, readiness, servicer),
        aclosing(client.watch()) as updates,
        asyncio.timeout(20),
    ):
        await anext(updates)
        readiness.leave()
        assert await kind_of(anext(updates)) is ErrorKind.UNREACHABLE
        await servicer.ended.wait()


async def test_disconnected_watcher_is_removed() -> None:
    async with serving(watches=frozenset({"WatchStatus"})) as (client, readiness, servicer):
        async with aclosing(client.watch()) as updates:
            await anext(updates)
        async with asyncio.timeout(20):
            await servicer.ended.wait()
        assert readiness.ready
