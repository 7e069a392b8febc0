"""Routes whose handler reads the body piece by piece, over a real server."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from gateway.apis.openai.errors import OPENAI
from gateway.encoding.json import json_response
from gateway.http.bodies import BoundedBody
from gateway.routing import Call, Routes
from tests.integration.gateway.conftest import Gateway
from torchless.contracts.errors import invalid_input

MIB = 2**20
KEY = "key-with-all-scopes"
disconnected = threading.Event()
begun = threading.Event()
routes = Routes(OPENAI)


@routes.post_stream(
    "/uploads", scope="embed", bulkhead="uploads", media_type="application/octet-stream", answer=dict[str, str | int]
)
async def upload(body: BoundedBody, call: Call) -> Response:
    """Takes an upload, and answers its size and digest."""
    digest, size, pieces = hashlib.sha256(), 0, 0
    try:
        async for chunk in body:
            begun.set()
            digest.update(chunk)
            size += len(chunk)
            pieces += 1
            if chunk.startswith(b"bad"):
                raise invalid_input(("uploads", 0), "starts with bad")
    except ClientDisconnect:
        disconnected.set()
        raise
    return json_response({"size": size, "digest": digest.hexdigest(), "many": int(pieces > 1)})


@routes.post_stream(
    "/large", scope="embed", bulkhead="uploads", media_type="application/x-ndjson", answer=int, body_mib=lambda _: 8.0
)
async def large(body: BoundedBody, call: Call) -> Response:
    """Takes a larger upload, and answers its size."""
    return json_response(sum([len(chunk) async for chunk in body]))


@routes.post_stream(
    "/first-line", scope="embed", bulkhead="uploads", media_type="application/x-ndjson", answer=dict[str, str]
)
async def first_line(body: BoundedBody, call: Call) -> Response:
    """Streams back the first piece, and does not read on."""

    async def lines(first: bytes) -> AsyncIterator[bytes]:
        yield first
        yield b"done\n"

    async for chunk in body:
        return StreamingResponse(lines(chunk))
    return Response()


@pytest.fixture(scope="module")
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    limits = {"body_mib": 1, "bodies_mib": 1, "concurrent_requests": 2}
    keys = [KEY, {"key": "key-that-reranks", "scopes": ["rerank"]}]
    with gateway(*routes.routes, limits=limits, auth={"api_keys": keys}) as client:
        client.headers["x-api-key"] = KEY
        yield client


@contextmanager
def connected(http: httpx.Client, *headers: str, path: str = "/uploads") -> Iterator[socket.socket]:
    """A connection on which a POST request's head was sent."""
    begun.clear()
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=20) as connection:
        head = (f"POST {path} HTTP/1.1", "Host: test", f"X-Api-Key: {KEY}", *headers, "", "")
        connection.sendall("\r\n".join(head).encode())
        yield connection


def answer_on(connection: socket.socket) -> tuple[int, str, dict[str, str]]:
    """Status, head and error of the answer."""
    received = b""
    while not received.endswith(b"}}"):
        received += connection.recv(65_536)
    head, _, body = received.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head.lower(), json.loads(body)["error"]


def pieces(count: int, size: int = MIB // 8) -> Iterator[bytes]:
    yield from (bytes([number]) * size for number in range(count))


def test_a_chunked_upload_arrives_in_pieces(http: httpx.Client) -> None:
    sent = b"".join(pieces(8))
    answer = http.post("/uploads", content=pieces(8))
    assert (answer.status_code, answer.json()["size"], answer.json()["many"]) == (200, MIB, 1)
    assert answer.json()["digest"] == hashlib.sha256(sent).hexdigest()
    assert answer.headers["x-request-id"]


def test_an_empty_upload_has_no_pieces(http: httpx.Client) -> None:
    assert http.post("/uploads", content=b"").json()["size"] == 0


def test_an_upload_may_be_larger_than_the_memory_for_bodies(http: httpx.Client) -> None:
    answer = http.post("/large", content=pieces(64))
    assert (answer.status_code, answer.json()) == (200, 8 * MIB)


def test_an_upload_past_its_limit_is_refused_while_it_is_read(http: httpx.Client) -> None:
    for path, count in (("/uploads", 9), ("/large", 65)):
        with connected(http, "Transfer-Encoding: chunked", path=path) as connection:
            for piece in pieces(count):
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            status, head, error = answer_on(connection)
        assert (status, error["code"]) == (413, "request_too_large")
        assert "connection: close" in head


def test_an_announced_upload_past_its_limit_is_refused_before_it_is_sent(http: httpx.Client) -> None:
    with connected(http, f"Content-Length: {MIB + 1}") as connection:
        status, head, error = answer_on(connection)
    assert (status, error["param"]) == (413, "body")
    assert "connection: close" in head


def test_an_upload_shorter_than_announced_is_a_disconnect(http: httpx.Client) -> None:
    disconnected.clear()
    with connected(http, f"Content-Length: {MIB}") as connection:
        connection.sendall(b"a" * 1000)
        assert begun.wait(10)
    assert disconnected.wait(10)
    assert http.post("/uploads", content=b"again").status_code == 200, "slot and memory are free again"


def test_an_upload_that_stalls_ends_with_its_deadline(http: httpx.Client) -> None:
    with connected(http, f"Content-Length: {MIB}", "X-Request-Timeout-S: 0.2") as connection:
        connection.sendall(b"a" * 1000)
        status, head, error = answer_on(connection)
    assert (status, error["code"]) == (504, "timeout")
    assert "connection: close" in head


def test_an_error_of_the_handler_closes_the_connection_of_an_unread_upload(http: httpx.Client) -> None:
    with connected(http, f"Content-Length: {MIB}") as connection:
        connection.sendall(b"bad")
        status, head, error = answer_on(connection)
    assert (status, error["param"], error["message"]) == (400, "uploads[0]", "uploads[0]: starts with bad")
    assert "connection: close" in head


def test_a_streamed_answer_to_an_unread_upload_is_sent_whole_and_closes_the_connection(http: httpx.Client) -> None:
    with connected(http, "Content-Length: 900000", path="/first-line") as connection:
        connection.sendall(b"first\n")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"connection: close" in head.lower()
    assert b"first\n" in body
    assert b"done\n" in body


def test_uploads_take_slots_of_their_bulkhead(http: httpx.Client) -> None:
    with connected(http, "Content-Length: 2000") as connection:
        connection.sendall(b"a" * 1000)
        assert begun.wait(10)
        assert http.post("/uploads", content=b"another").status_code == 429
        connection.sendall(b"a" * 1000)
        assert b"200 OK" in connection.recv(65_536)
    assert http.post("/uploads", content=b"another").status_code == 200


def test_uploads_require_a_key_with_their_scope(http: httpx.Client) -> None:
    for key, status in (("", 401), ("key-that-reranks", 403), (KEY, 200)):
        assert http.post("/uploads", content=b"a", headers={"x-api-key": key}).status_code == status


def test_a_stream_route_documents_its_media_type() -> None:
    operation, *_ = routes.operations
    assert (operation.method, operation.body_type, operation.scope) == ("POST", "application/octet-stream", "embed")
