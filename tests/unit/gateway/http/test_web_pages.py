"""What web pages can send to a gateway, with and without API keys."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from gateway.http.web_pages import WebPageMiddleware
from gateway.settings import GatewaySettings
from torchless.contracts.errors import TorchlessError

LOOPBACK, NETWORK = ("127.0.0.1", 3000), ("10.1.2.3", 3000)
PAGE = "https://app.example"


def answer(path: str, error: TorchlessError) -> Response:
    return JSONResponse(error.message, getattr(error, "status", error.kind.policy.http_status))


async def accept(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("accepted")(scope, receive, send)


async def status(*headers: tuple[str, str], method: str = "POST", server: Any = LOOPBACK, **settings: Any) -> int:
    """Status of a request with these headers."""
    services = SimpleNamespace(settings=GatewaySettings(**settings))
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": "/v1/embeddings",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "server": server,
        "app": SimpleNamespace(state=SimpleNamespace(services=services)),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await WebPageMiddleware(accept, answer)(scope, receive, send)
    found: int = sent[0]["status"]
    return found


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "localhost.:3000",
        "app.localhost:3000",
        "127.0.0.1:3000",
        "127.9.9.9",
        "[::1]:3000",
        "192.168.1.7:3000",
        "host.docker.internal:3000",
    ],
)
async def test_names_that_others_cannot_point_here_are_accepted(host: str) -> None:
    assert await status(("host", host)) == 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("server", [LOOPBACK, ("::1", 3000), ("127.0.0.53", 3000), ("::ffff:127.0.0.1", 3000)])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "evil"]
)
async def test_rebound_names_are_refused_over_loopback(host: str, server: Any, method: str) -> None:
    assert await status(("host", host), server=server, method=method) == 403


async def test_any_name_is_accepted_over_the_network_and_with_keys() -> None:
    host = ("host", "gateway.example:3000")
    assert await status(host, server=NETWORK) == 200
    assert await status(host, server=None) == 200
    assert await status(host, server=("/run/gateway.sock", None)) == 200
    assert await status(host, auth={"api_keys": ["a-key-of-mine"]}) == 200


async def test_allowed_hosts_are_accepted_and_bind_the_network_too() -> None:
    for server in (LOOPBACK, NETWORK):
        allowed = {"allowed_hosts": ["Gateway.example"], "server": server}
        assert await status(("host", "gateway.EXAMPLE:3000"), **allowed) == 200
        assert await status(("host", "localhost"), **allowed) == 200
        assert await status(("host", "evil.example"), **allowed) == 403
        assert await status(("host", "evil.example"), auth={"api_keys": ["a-key-of-mine"]}, **allowed) == 403
        assert await status(("host", "evil.example"), server=server, allowed_hosts=["*"]) == 200


async def test_no_host_is_no_browsers_request_and_an_invalid_one_is_refused() -> None:
    assert await status() == 200
    for host in ("[::1", "a" * 10_000, "localhost" + "/" * 400):
        assert await status(("host", host)) == 403


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "https://evil.example")],
        [("origin", "null")],
        [("origin", "http://localhost:3001")],
        [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
        [("origin", "http://localhost:3001"), ("sec-fetch-site", "same-site")],
        [("sec-fetch-site", "cross-site")],
    ],
)
async def test_pages_of_other_origins_cannot_change_anything(headers: list[tuple[str, str]]) -> None:
    for server in (LOOPBACK, NETWORK):
        for method in ("POST", "DELETE", "PUT"):
            assert await status(("host", "localhost:3000"), *headers, method=method, server=server) == 403
        # The browser keeps the page from reading the answer.
        assert await status(("host", "localhost:3000"), *headers, method="GET", server=server) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("origin", "http://localhost:3000")],
        [("origin", "http://LOCALHOST:3000")],
        [("origin", "https://behind-a-proxy.example"), ("sec-fetch-site", "same-origin")],
        [("sec-fetch-site", "none")],
    ],
)
async def test_programs_and_own_pages_are_accepted(headers: list[tuple[str, str]]) -> None:
    assert await status(("host", "localhost:3000"), *headers) == 200


async def test_allowed_origins_and_keys_accept_other_pages() -> None:
    headers = (("host", "localhost"), ("origin", PAGE), ("sec-fetch-site", "cross-site"))
    assert await status(*headers, cors={"allow_origins": [PAGE]}) == 200
    assert await status(*headers, cors={"allow_origins": ["*"]}) == 200
    assert await status(*headers, cors={"allow_origins": ["https://another.example"]}) == 403
    assert await status(*headers, auth={"api_keys": ["a-key-of-mine"]}) == 200


async def test_a_websocket_of_another_origin_is_closed() -> None:
    services = SimpleNamespace(settings=GatewaySettings())
    scope = {
        "type": "websocket",
        "http_version": "1.1",
        "path": "/",
        "headers": [(b"host", b"localhost"), (b"origin", b"https://evil.example")],
        "server": LOOPBACK,
        "app": SimpleNamespace(state=SimpleNamespace(services=services)),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await WebPageMiddleware(accept, answer)(scope, receive, send)
    assert [(each["type"], each["code"]) for each in sent] == [("websocket.close", 1008)]
