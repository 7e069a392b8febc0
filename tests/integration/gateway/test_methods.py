"""Methods and content codings, as RFC 9110 has them."""

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib

import httpx
import pytest

from tests.integration.gateway.conftest import HEADERS, Gateway
from tests.integration.gateway.error_bodies import message_of
from torchless.clients.testing import EmbeddingService

CHANGING = {"date", "x-request-id"}
"""Headers that differ between two equal requests."""


def paths(http: httpx.Client) -> list[str]:
    """A path of every route."""
    documented = http.get("/openapi.json").json()["paths"]
    return [re.sub(r"{\w+}", "testing/hashes", path) for path in documented] + ["/docs", "/openapi.json"]


def test_head_answers_as_get_without_a_body(http: httpx.Client) -> None:
    asked = 0
    for path in paths(http):
        with http.stream("GET", path) as got:
            pass
        if got.status_code == 405:
            continue
        head = http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        lengths = {"content-length"} if path == "/metrics" else set()
        both = [{k: v for k, v in each.headers.items() if k not in CHANGING | lengths} for each in (got, head)]
        # A stream has no length, and HEAD no chunks.
        assert both[1] == {k: v for k, v in both[0].items() if k != "transfer-encoding"}, path
        asked += 1
    assert asked > 10


def test_head_of_a_route_that_requires_a_key_requires_it(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, auth={"api_keys": ["a-key-of-mine"]}) as http:
        assert http.head("/v1/models").status_code == 401
        assert http.head("/v1/models", headers={"x-api-key": "a-key-of-mine"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/embeddings", "OPTIONS, POST"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/a/b", "GET, HEAD, OPTIONS"),
        ("/v1/gpu/allocations/x", "DELETE, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS, POST"),
        ("/docs", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_options_and_refused_methods_name_the_allowed_ones(http: httpx.Client, path: str, allowed: str) -> None:
    options = http.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allowed, b"")
    for method in ("PUT", "PATCH", "TRACE", "PROPFIND"):
        refused = http.request(method, path)
        assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert allowed in refused.text


def test_options_of_an_unknown_path_is_404(http: httpx.Client) -> None:
    assert http.options("/nope").status_code == 404


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_decoded(http: httpx.Client, coding: str, compress: object) -> None:
    body = json.dumps({"input": ["How do swifts sleep?"] * 300}).encode()
    packed = compress(body)  # type: ignore[operator]
    headers = {"content-encoding": coding}
    answers = [http.post("/v1/embeddings", content=packed, headers=headers), http.post("/v1/embeddings", content=body)]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(("family", "path", "malformed"), [("openai", "/v1/embeddings", 400), ("tei", "/embed", 422)])
def test_bodies_that_cannot_be_decoded_are_refused_in_the_familys_form(
    http: httpx.Client, family: str, path: str, malformed: int
) -> None:
    unsupported = http.post(path, content=b"abc", headers={"content-encoding": "br"})
    assert (unsupported.status_code, unsupported.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert "content-encoding: must be gzip or deflate" in message_of(family, unsupported)
    damaged = http.post(path, content=b"abc", headers={"content-encoding": "gzip"})
    assert damaged.status_code == malformed
    assert "content-encoding: does not match the body" in message_of(family, damaged)


@pytest.mark.parametrize(("family", "path"), [("openai", "/v1/embeddings"), ("tei", "/embed")])
def test_a_small_body_that_decodes_past_the_limit_is_too_large(
    gateway: Gateway, embedding: EmbeddingService, family: str, path: str
) -> None:
    with gateway(embedding={"address": embedding.address}, limits={"body_mib": 1}) as http:
        body = gzip.compress(b" " * 64 * 2**20)
        assert len(body) < 2**17
        refused = http.post(path, content=body, headers={"content-encoding": "gzip"})
        assert refused.status_code == 413
        assert "larger than 1 MiB" in message_of(family, refused)
        assert http.post("/v1/embeddings", json={"input": "one"}).status_code == 200


def exchange(http: httpx.Client, *sent: bytes) -> bytes:
    """What the gateway sends on one connection until it closes it; the parts are sent as answers arrive."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=20) as connection:
        received = b""
        for part in sent:
            connection.sendall(part)
            received += connection.recv(65536)
        while piece := connection.recv(65536):
            received += piece
    return received


def test_a_client_that_waits_for_100_continue_gets_it_before_its_body_is_read(http: httpx.Client) -> None:
    body = b'{"input": "one"}'
    head = f"POST /v1/embeddings HTTP/1.1\r\n{HEADERS}expect: 100-continue\r\nconnection: close\r\n"
    received = exchange(http, f"{head}content-length: {len(body)}\r\n\r\n".encode(), body)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/v1/embeddings", "content-type: text/plain", b"415"),
        ("/v1/embeddings", "content-type: application/json\r\ncontent-encoding: br", b"415"),
        ("/nope", "content-type: application/json", b"404"),
    ],
)
def test_a_refused_client_that_waits_for_100_continue_can_leave_its_body_out(
    http: httpx.Client, path: str, header: str, status: bytes
) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    received = exchange(http, head.encode())
    assert received.split(b" ")[1] == status
    assert b"connection: close" in received
    assert received.count(b"HTTP/1.1") == 1
