"""What is wrong gets the documented status and body of its family, and the next good request works."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import HEADERS, Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.waiting import wait_until
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large

MIB = 1024 * 1024
FAMILIES = {
    "openai": ("/v1/embeddings", "input"),
    "tei": ("/embed", "inputs"),
    "cohere": ("/v2/embed", "texts"),
}
EMPTY = {"openai": 400, "tei": 400, "cohere": 400}
MALFORMED = {"openai": 400, "tei": 422, "cohere": 400}
TOO_LARGE = {"openai": 400, "tei": 413, "cohere": 400}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def post(http: httpx.Client, family: str, value: Any) -> httpx.Response:
    path, field = FAMILIES[family]
    return http.post(path, json={field: value})


@pytest.mark.parametrize("value", [[], ["one", ""], [""]])
def test_empty_input_is_refused(http: httpx.Client, family: str, value: Any) -> None:
    answer = post(http, family, value)
    assert answer.status_code == EMPTY[family]
    assert FAMILIES[family][1] in message_of(family, answer)
    if family == "tei":
        assert answer.json()["error_type"] == "Empty"
    assert post(http, family, ["one"]).status_code == 200


def test_too_many_inputs_are_refused(gateway: Gateway, embedding: EmbeddingService, family: str) -> None:
    with gateway(embedding={"address": embedding.address}, limits={"items": 3}) as http:
        answer = post(http, family, ["one"] * 4)
        assert answer.status_code == TOO_LARGE[family]
        assert "the maximum is 3" in message_of(family, answer)
        assert post(http, family, ["one"] * 3).status_code == 200


@pytest.mark.parametrize("value", [1, 1.5, True, None, {}, [1.5], ["one", 1], [["one"]], [None], [[1], "one"], [-1]])
def test_wrong_types_are_refused(http: httpx.Client, family: str, value: Any) -> None:
    answer = post(http, family, value)
    assert answer.status_code == MALFORMED[family]
    assert FAMILIES[family][1] in message_of(family, answer)


@pytest.mark.parametrize("dimensions", ["NaN", "Infinity", "1.5", '"8"', "-1", "true", "1e400"])
def test_dimensions_that_are_no_whole_number(http: httpx.Client, family: str, dimensions: str) -> None:
    path, field = FAMILIES[family]
    name = "output_dimension" if family == "cohere" else "dimensions"
    body = f'{{"{field}": ["one"], "{name}": {dimensions}}}'
    answer = http.post(path, content=body)
    assert answer.status_code == MALFORMED[family]
    assert name in message_of(family, answer)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"input": "\xff"}', b'{"input": "\\ud800"}', b"[" * 100_000, b"{}"],
)
def test_a_body_that_is_no_request(http: httpx.Client, family: str, body: bytes) -> None:
    answer = http.post(FAMILIES[family][0], content=body)
    assert answer.status_code == MALFORMED[family]
    assert message_of(family, answer)
    assert post(http, family, ["one"]).status_code == 200


def test_an_announced_body_that_is_too_large_is_refused_unread(http: httpx.Client, family: str) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += MIB
            yield b" " * MIB

    headers = {"content-length": str(1024 * MIB)}
    answer = http.post(FAMILIES[family][0], content=body(), headers=headers)
    assert answer.status_code == 413
    assert "32 MiB" in message_of(family, answer)
    assert sent < 64 * MIB
    assert post(http, family, ["one"]).status_code == 200


def test_an_unannounced_body_is_refused_while_it_is_read(http: httpx.Client, family: str) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += MIB
            yield b" " * MIB

    answer = http.post(FAMILIES[family][0], content=body())
    assert answer.status_code == 413
    assert "32 MiB" in message_of(family, answer)
    assert 32 * MIB < sent < 128 * MIB
    assert post(http, family, ["one"]).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status", "tei"),
    [
        (ErrorKind.OVERLOADED, 429, 429),
        (ErrorKind.RATE_LIMITED, 429, 429),
        (ErrorKind.GPU_UNAVAILABLE, 503, 503),
        (ErrorKind.MODEL_UNAVAILABLE, 503, 503),
        (ErrorKind.LOADING, 503, 503),
        (ErrorKind.UNREACHABLE, 503, 503),
        (ErrorKind.DEADLINE, 504, 504),
        (ErrorKind.INTERNAL, 500, 424),
        (ErrorKind.INPUT_TOO_LARGE, 400, 413),
        (ErrorKind.INVALID_INPUT, 400, 413),
    ],
)
def test_errors_of_the_service(
    http: httpx.Client, embedding: EmbeddingService, kind: ErrorKind, status: int, tei: int
) -> None:
    embedding.error = TorchlessError(kind, "as the service says", retry_after_s=2.2)
    for family in FAMILIES:
        answer = post(http, family, ["one"])
        assert answer.status_code == (tei if family == "tei" else status)
        assert message_of(family, answer) == "as the service says"
        assert answer.headers.get("retry-after") == ("3" if status in {429, 503} else None)
    codes = {
        ErrorKind.GPU_UNAVAILABLE: "gpu_unavailable",
        ErrorKind.MODEL_UNAVAILABLE: "model_unavailable",
        ErrorKind.LOADING: "model_loading",
    }
    if kind in codes:
        assert post(http, "openai", ["one"]).json()["error"]["code"] == codes[kind]


@pytest.mark.parametrize("kind", [ErrorKind.LOADING, ErrorKind.GPU_UNAVAILABLE, ErrorKind.UNREACHABLE])
def test_retry_after_is_that_of_the_kind_unless_the_service_gives_one(
    http: httpx.Client, embedding: EmbeddingService, kind: ErrorKind
) -> None:
    embedding.error = TorchlessError(kind, "as the service says")
    for family in FAMILIES:
        assert post(http, family, ["one"]).headers["retry-after"] == f"{kind.policy.retry_after_s:.0f}"


@pytest.mark.parametrize("of_service", ["texts", "token_ids"])
def test_errors_about_all_inputs_name_the_callers_field(
    http: httpx.Client, embedding: EmbeddingService, of_service: str
) -> None:
    embedding.error = input_too_large(of_service, "hold 9 tokens in all and at most 8 are taken; send fewer")
    for family, (_, field) in FAMILIES.items():
        answer = post(http, family, ["one"])
        assert message_of(family, answer) == f"{field}: hold 9 tokens in all and at most 8 are taken; send fewer"
    assert post(http, "openai", ["one"]).json()["error"]["param"] == "input"
    similar = {"inputs": {"source_sentence": "one", "sentences": ["two"]}}
    bodies = {"/similarity": similar, "/tokenize": {"inputs": "one"}, "/decode": {"ids": [1]}}
    for path, body in bodies.items():
        said = http.post(path, json=body).json()["error"]
        assert said.startswith("ids: hold" if path == "/decode" else "inputs: hold")


def test_a_service_that_is_not_there_is_said_at_once(gateway: Gateway, family: str, free_address: str) -> None:
    with gateway(embedding={"address": free_address}) as http:
        answer = http.post(
            FAMILIES[family][0], json={FAMILIES[family][1]: ["one"]}, headers={"x-request-timeout-s": "20"}
        )
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert free_address not in answer.text
        assert message_of(family, answer)
        assert http.get("/health/live").status_code == 200


def test_a_deadline_is_kept(http: httpx.Client, embedding: EmbeddingService, family: str) -> None:
    embedding.latency_s = 60
    path, field = FAMILIES[family]
    answer = http.post(path, json={field: ["one"]}, headers={"x-request-timeout-s": "0.2"})
    assert answer.status_code == 504
    assert message_of(family, answer)
    wait_until(lambda: embedding.cancelled > 0, within_s=10)


def test_a_body_that_does_not_come_is_not_waited_for(http: httpx.Client, family: str) -> None:
    head = f"POST {FAMILIES[family][0]} HTTP/1.1\r\n{HEADERS}x-request-timeout-s: 0.2\r\ncontent-length: 9\r\n\r\n{{"
    with _connection(http) as connection:
        connection.sendall(head.encode())
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 504")


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "", "1_0"])
def test_a_timeout_that_is_no_number_of_seconds(http: httpx.Client, family: str, value: str) -> None:
    path, field = FAMILIES[family]
    answer = http.post(path, json={field: ["one"]}, headers={"x-request-timeout-s": value})
    assert answer.status_code == MALFORMED[family]
    assert "x-request-timeout-s" in message_of(family, answer)


def test_more_requests_than_are_admitted(gateway: Gateway, embedding: EmbeddingService) -> None:
    limits = {"concurrent_requests": 1}
    with gateway(embedding={"address": embedding.address}, limits=limits) as http:
        body = json.dumps({"input": "one"}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode()
        embedding.latency_s = 60
        with _connection(http) as held:
            held.sendall(head + body)
            wait_until(lambda: embedding.in_flight > 0, within_s=10)
            refused = post(http, "openai", ["one"])
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        wait_until(lambda: embedding.cancelled > 0, within_s=10)
        embedding.reset()
        assert post(http, "openai", ["one"]).status_code == 200


def test_bodies_that_there_is_no_room_for(gateway: Gateway, embedding: EmbeddingService, family: str) -> None:
    with gateway(embedding={"address": embedding.address}, limits={"body_mib": 1, "bodies_mib": 1}) as http:
        embedding.latency_s = 60
        body = b'{"input": "one"}' + b" " * (MIB - 1024)
        with _connection(http) as held:
            held.sendall(
                f"POST /v1/embeddings HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode() + body
            )
            wait_until(lambda: embedding.in_flight > 0, within_s=10)
            refused = http.post(FAMILIES[family][0], content=b" " * 2048)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "busy" in message_of(family, refused)
        wait_until(lambda: embedding.cancelled > 0, within_s=10)
        embedding.reset()
        for _ in range(3):
            assert http.post("/v1/embeddings", content=body).status_code == 200


def test_a_caller_that_hangs_up_is_not_worked_for(http: httpx.Client, embedding: EmbeddingService, family: str) -> None:
    path, field = FAMILIES[family]
    body = json.dumps({field: ["one"]}).encode()
    embedding.latency_s = 60
    with _connection(http) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: embedding.in_flight > 0, within_s=10)
        assert not embedding.cancelled
    wait_until(lambda: embedding.cancelled > 0, within_s=10)
    embedding.reset()
    assert post(http, family, ["one"]).status_code == 200


def _connection(http: httpx.Client) -> Any:
    return socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=10)


@pytest.mark.parametrize(
    ("path", "status", "keys"),
    [("/v1/nope", 404, {"error"}), ("/v2/nope", 404, {"message", "detail"}), ("/nope", 404, {"error", "error_type"})],
)
def test_a_route_that_is_not_there(http: httpx.Client, path: str, status: int, keys: set[str]) -> None:
    answer = http.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == keys


def test_a_method_that_a_route_does_not_answer(http: httpx.Client, family: str) -> None:
    answer = http.put(FAMILIES[family][0], content=b"{}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert message_of(family, answer)
