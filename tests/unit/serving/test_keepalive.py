"""Clients that ping over an idle connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bentos.serving.health import HealthInterceptor
from bentos.serving.readiness import Readiness
from bentos.serving.service import SHORTEST_PING_INTERVAL_S, _configure_bentoml, keepalive_options
from bentos.serving.settings import ServingSettings

SHORTEST_OF_CLIENTS_S = 10
"""Least `keepalive_s` that the settings of our clients allow."""
PINGING = [
    ("grpc.keepalive_time_ms", 100),  # gRPC pings once a second at most
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@asynccontextmanager
async def watched(options: Any) -> AsyncIterator[tuple[Any, Readiness]]:
    """A client watches a server that has `options`, pinging, and has received the first status."""
    readiness = Readiness()
    server = grpc.aio.server(interceptors=[HealthInterceptor("any", readiness)], options=options)
    health_pb2_grpc.add_HealthServicer_to_server(health_pb2_grpc.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=PINGING) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest()
            )
            await watch.read()
            yield watch, readiness
    finally:
        await server.stop(None)


async def test_client_that_pings_at_the_allowed_interval_stays_connected() -> None:
    """The same pings end the stream of a server without the option, and of ours one that pings too often."""
    async with (
        asyncio.timeout(30),
        watched(keepalive_options(0.5)) as (allowed, readiness),  # the first, so that it has pinged no less
        watched([]) as (of_default, _),
        watched(keepalive_options(10)) as (too_often, _),
    ):
        for hung_up in (of_default, too_often):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await hung_up.read()
            assert caught.value.details() == "Too many pings"
        readiness.become_ready()
        assert (await allowed.read()).status == health_pb2.HealthCheckResponse.SERVING


def test_bento_server_uses_the_keepalive_options() -> None:
    from bentoml._internal.server.grpc_app import Server

    _configure_bentoml(ServingSettings())
    server = Server.__new__(Server)
    server.max_concurrent_streams, server.enable_channelz, server.max_message_length = None, False, 1
    assert set(keepalive_options(SHORTEST_PING_INTERVAL_S)) <= set(server.options)
    assert SHORTEST_PING_INTERVAL_S < SHORTEST_OF_CLIENTS_S
