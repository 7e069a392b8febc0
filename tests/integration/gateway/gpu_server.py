"""The real GPU service on a free port, in this process; tests arrange only the driver below it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from bentos.gpu.servicer import GPUServicer
from bentos.gpu.settings import GPUSettings
from bentos.serving.interceptor import CallInterceptor
from bentos.serving.readiness import Readiness
from tests.fake_gpu_driver import GIB, FakeGPUDriver, device
from tests.waiting import wait_until
from torchless.clients.gpu import SERVICE_NAME, GPUClient
from torchless.clients.sync import background
from torchless.contracts.gpu.v1.gpu_pb2_grpc import add_GPUServiceServicer_to_server

PATIENCE_S = 20.0


class GPUServer:
    """Set `driver.devices` or `driver.missing`, then `settle`."""

    def __init__(self) -> None:
        self.driver = FakeGPUDriver()
        self.address = ""
        self._loop = background.current()
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Self:
        self.reset()
        self._loop.run(self._start())
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.run(self._stop())
        self._folder.cleanup()

    def reset(self) -> None:
        """Two devices, of 10 and of 20 GiB."""
        self.driver.missing = ""
        self.driver.devices = [device("GPU-a", total_mb=10 * GIB), device("GPU-b", total_mb=20 * GIB, index=1)]

    def settle(self, *, uuids: set[str]) -> None:
        """Waits until the service has seen that these devices are there, and no others."""
        wait_until(lambda: self._loop.run(self._seen()) == uuids, f"the service sees {uuids}", within_s=PATIENCE_S)

    def release_all(self) -> None:
        """Ends every lease."""
        self._loop.run(self._release_all())

    async def _seen(self) -> set[str]:
        async with GPUClient(self.address) as client:
            return {each.uuid for each in await client.devices()}

    async def _release_all(self) -> None:
        async with GPUClient(self.address) as client:
            for lease in (await client.status()).allocations:
                await client.release(lease.id)

    async def _start(self) -> None:
        settings = GPUSettings.model_validate(
            {
                "store": str(Path(self._folder.name) / "leases.sqlite3"),
                "reserve_mb": 512,
                "min_ttl_s": 0.1,
                "driver": {"poll_interval_s": 0.05, "max_reading_age_s": 0, "reopen_interval_s": 0.1},
                "watch": {"min_interval_s": 0.05},
                "sweep_interval_s": 0.05,
            }
        )
        self._servicer = GPUServicer(settings, lambda: self.driver)
        readiness = Readiness()
        interceptor = CallInterceptor(readiness, lost_device_is_final=False, watches=frozenset({"WatchStatus"}))
        self._server = grpc.aio.server(interceptors=[interceptor])
        add_GPUServiceServicer_to_server(self._servicer, self._server)
        health = health_aio.HealthServicer()
        await health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._servicer.start()
        readiness.become_ready()
        await self._server.start()

    async def _stop(self) -> None:
        await self._server.stop(0)
        await self._servicer.stop()
