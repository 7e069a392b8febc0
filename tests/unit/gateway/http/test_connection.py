"""Limits of connections come from the settings in force, and heads of requests are checked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.http.connection import Connection
from gateway.http.request_head import RefusedRequestError, check_head, without_upgrade
from gateway.services import Services
from gateway.settings import GatewaySettings, HTTPSettings
from gateway.worker import WorkerApp

HOST = (b"host", b"test")
LONGEST_REUSE_S = 60
"""Time for which AWS and Google's load balancers keep idle connections, at least by default."""


def connect(application: WorkerApp) -> Connection:
    config = uvicorn.Config(application, timeout_keep_alive=5, log_config=None, lifespan="off")
    given: dict[str, Any] = {"config": config, "server_state": ServerState(), "app_state": {}}
    connection = application.connect(**given, _loop=asyncio.get_running_loop())
    assert isinstance(connection, Connection)
    return connection


async def test_idle_connections_outlive_those_of_load_balancers_by_default() -> None:
    assert connect(WorkerApp(GatewaySettings())).timeout_keep_alive > LONGEST_REUSE_S


async def test_new_connections_use_the_settings_in_force() -> None:
    application = WorkerApp(GatewaySettings(http={"keep_alive_s": 100}))
    assert connect(application).timeout_keep_alive == 100
    await application.open()
    assert application._app is not None
    services: Services = application._app.state.services
    changed = services.settings.model_copy(update={"http": HTTPSettings(keep_alive_s=200)})
    application._app.state.services = replace(services, settings=changed)
    assert connect(application).timeout_keep_alive == 200
    await application.close()


@pytest.mark.parametrize(
    ("version", "headers"),
    [("1.1", [HOST]), ("1.0", []), ("1.1", [HOST, (b"transfer-encoding", b"Chunked")]), ("1.1", [(b"host", b"")])],
)
def test_heads_that_all_servers_read_alike_pass(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    check_head(b"POST", version, headers)


@pytest.mark.parametrize(
    ("status", "method", "version", "headers"),
    [
        (400, b"GET", "1.1", []),
        (400, b"GET", "1.1", [HOST, HOST]),
        (400, b"GET", "1.0", [HOST, HOST]),
        (400, b"GET", "1.1", [(b"host", b"a b")]),
        (400, b"GET", "1.1", [(b"host", b"test:port")]),
        (400, b"POST", "1.0", [(b"transfer-encoding", b"chunked")]),
        (501, b"POST", "1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")]),
        (501, b"POST", "1.1", [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
        (501, b"CONNECT", "1.1", [HOST]),
        (505, b"GET", "2.0", [HOST]),
        (505, b"GET", "0.9", []),
    ],
)
def test_other_heads_are_refused(status: int, method: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RefusedRequestError) as refused:
        check_head(method, version, headers)
    assert refused.value.status == status


def test_without_an_upgrade_everything_else_of_a_head_stays() -> None:
    head = without_upgrade(b"POST", b"/a?b", "1.1", [HOST, (b"upgrade", b"h2c"), (b"x-\xe9", b""), (b"upgrade", b"a")])
    assert head == b"POST /a?b HTTP/1.1\r\nhost: test\r\nx-\xe9: \r\n\r\n"
