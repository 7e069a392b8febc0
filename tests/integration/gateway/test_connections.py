"""What the gateway does with connections: sockets against the gateway as BentoML serves it."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import require_program
from tests.integration.gateway.raw_http import RawConnection, chunked, post
from tests.integration.gateway.served import ROOT, served
from tests.waiting import wait_until
from torchless.clients.testing import EmbeddingService, vector_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
BODY = b'{"input": "one"}'
HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: hidden\r\n\r\n"
"""A request, where the framing says that it is a body."""
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFERS = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAA"),
    "tls": ("Connection: upgrade", "Upgrade: TLS/1.3"),
    "websocket": (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
}
SHORT_S = 2.0
NO_CACHE = {"TORCHLESS_GATEWAY_CACHE__ENABLED": "false"}
SHORT = {f"TORCHLESS_GATEWAY_HTTP__{name}": str(SHORT_S) for name in ("HEAD_S", "STALL_S")}


@pytest.fixture(scope="module")
def gateway_process(
    _embedding_server: EmbeddingService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, int]]:
    """A client of the gateway, and its supervisor's process id."""
    home = tmp_path_factory.mktemp("bentoml")
    with served("gateway.service:Gateway", ROOT, _embedding_server.address, home, **SHORT, **NO_CACHE) as running:
        yield running


@pytest.fixture
def http(gateway_process: tuple[httpx.Client, int], embedding: EmbeddingService) -> httpx.Client:
    """A client of the gateway."""
    return gateway_process[0]


def embedding_of(answer: bytes) -> list[float]:
    vector: list[float] = json.loads(answer)["data"][0]["embedding"]
    return vector


# Offers to upgrade


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("pieces", ["together", "head first", "byte by byte"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_request_whose_offer_is_not_taken_up_is_answered_with_its_body(
    http: httpx.Client, offer: tuple[str, ...], pieces: str, is_chunked: bool
) -> None:
    request = post(BODY, *offer)
    if is_chunked:
        request = post(b"", *offer, "Transfer-Encoding: chunked", length=False) + chunked(BODY, 5)
    head = request.index(b"\r\n\r\n") + 4
    parts = {
        "together": [request],
        "head first": [request[:head], request[head:]],
        "byte by byte": [bytes([byte]) for byte in request],
    }[pieces]
    with RawConnection(http) as connection:
        for _ in range(2):
            connection.send(*parts)
            answer = connection.answer()
            assert answer.status == 200
            assert embedding_of(answer.body) == pytest.approx(vector_of("one").tolist(), abs=1e-7)
        connection.send(request + GET)
        assert [connection.answer().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_body_after_an_offer_is_never_read_as_a_request(http: httpx.Client, offer: tuple[str, ...]) -> None:
    with RawConnection(http) as connection:
        connection.send(*(bytes([byte]) for byte in post(HIDDEN, *offer)), post(BODY))
        assert connection.answer().status == 400
        assert embedding_of(connection.answer().body)
        connection.send(GET)
        assert connection.answer().status == 200


def test_many_offers_in_one_packet_are_answered_in_order(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(
            b"".join(post(b'{"inputs": "%d"}' % number, *OFFERS["h2c"], path="/embed") for number in range(20))
        )
        for number in range(20):
            assert connection.answer().json()[0] == pytest.approx(vector_of(str(number)).tolist(), abs=1e-6)


def test_a_websocket_handshake_is_refused_while_no_route_takes_it(http: httpx.Client) -> None:
    handshake = "\r\n".join(["GET /v1/embeddings HTTP/1.1", "Host: localhost", *OFFERS["websocket"], "", ""]).encode()
    with RawConnection(http) as connection:
        connection.send(handshake)
        assert connection.answer().status in {403, 404}
        assert connection.has_ended()


def test_connect_is_not_implemented(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n" + GET)
        assert connection.answer().status == 501
        assert connection.has_ended()


def test_curl_that_offers_h2c_gets_its_answer(http: httpx.Client) -> None:
    curl = require_program("curl", "the Debian package curl")
    command = [curl, "--silent", "--http2", "--json", BODY.decode(), f"{http.base_url}/v1/embeddings"]
    answer = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    assert embedding_of(answer) == pytest.approx(vector_of("one").tolist(), abs=1e-7)


def test_java_with_default_settings_gets_its_answers(http: httpx.Client) -> None:
    program = Path(__file__).parent / "Post.java"
    command = [
        require_program("java", "Debian's openjdk-17-jdk-headless"),
        str(program),
        str(http.base_url.join("/v1/embeddings")),
    ]
    answers = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout.splitlines()
    assert [answer.split(b" ", 1)[0] for answer in answers] == [b"200"] * 3
    for answer in answers:
        assert embedding_of(answer.split(b" ", 1)[1]) == pytest.approx(vector_of("one").tolist(), abs=1e-7)


# Heads that are refused


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, post(BODY, "Transfer-Encoding: chunked")),
        (400, post(BODY, "Content-Length: 3")),
        (400, post(BODY, "Content-Length : 16", length=False)),
        (400, post(BODY, "Content-Length: +16", length=False)),
        (400, post(BODY, "Content-Length: -1", length=False)),
        (400, post(b"0x10\r\n" + BODY + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False)),
        (501, post(BODY, "Transfer-Encoding: xchunked", length=False)),
        (400, post(BODY, "Transfer-Encoding: chunked, gzip", length=False)),
        (501, post(chunked(BODY, 9), "Transfer-Encoding: gzip, chunked", length=False)),
        (400, post(BODY, "X-A: b\x00c")),
        (400, post(BODY, "X-A: b", " folded")),
        (400, post(BODY).replace(b"\r\n", b"\n")),
        (400, post(BODY).replace(b"Host: localhost\r\n", b"")),
        (400, post(BODY, "Host: other")),
        (400, post(BODY, "Host: localhost")),
        (400, post(BODY).replace(b"Host: localhost", b"Host: local/host")),
        (400, post(BODY).replace(b"Host: localhost", b"Host: user@localhost")),
        (
            400,
            post(b"", "Transfer-Encoding: chunked", length=False).replace(b"HTTP/1.1", b"HTTP/1.0") + chunked(BODY, 9),
        ),
        (505, post(BODY).replace(b"HTTP/1.1", b"HTTP/2.0")),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS handshake"),
    ],
)
def test_a_request_that_two_servers_may_read_differently_is_refused_and_ends_the_connection(
    http: httpx.Client, status: int, request_: bytes
) -> None:
    with RawConnection(http) as connection:
        connection.send(request_ + HIDDEN)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.body
        assert connection.has_ended()


@pytest.mark.parametrize("host", ["", "localhost", "localhost:80", "10.0.0.1:3000", "[::1]:3000", "a_b.localhost."])
def test_hosts_are_accepted_in_every_valid_form(http: httpx.Client, host: str) -> None:
    with RawConnection(http) as connection:
        connection.send(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert connection.answer().status == 200


def test_http_1_0_needs_no_host_and_ends_its_connection(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert connection.answer().status == 200
        assert connection.has_ended()


def test_a_refusal_comes_after_the_answers_to_earlier_requests(http: httpx.Client, embedding: EmbeddingService) -> None:
    embedding.latency_s = 0.5
    with RawConnection(http) as connection:
        connection.send(post(BODY) + b"nonsense\r\n\r\n" + HIDDEN)
        assert embedding_of(connection.answer().body)
        assert connection.has_ended()


def test_http_1_0_is_never_told_to_continue(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(post(BODY, "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert connection.answer().status == 200


def test_a_malformed_chunk_ends_the_request_that_has_begun(http: httpx.Client, embedding: EmbeddingService) -> None:
    with RawConnection(http) as connection:
        connection.send(post(b"", "Transfer-Encoding: chunked", length=False), b'5\r\n{"inp\r\n', b"nonsense\r\n")
        assert connection.answer().status == 400
        assert connection.has_ended()
    assert embedding.messages == []


def test_fields_of_a_trailer_are_not_read_as_headers(http: httpx.Client) -> None:
    body = chunked(BODY, 9, trailer=b"X-Request-Id: trailer\r\nX-Request-Timeout-S: nonsense\r\n")
    with RawConnection(http) as connection:
        connection.send(post(b"", "Transfer-Encoding: chunked", length=False) + body)
        answer = connection.answer()
        assert answer.status == 200
        assert answer.headers["x-request-id"] != "trailer"


# Large heads

MIB = 2**20
BOMBS = {
    "one field of 8 MiB": (431, [b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", *[b"a" * MIB] * 8]),
    "10,000 fields": (431, [b"GET / HTTP/1.1\r\nHost: localhost\r\n", *[b"X-A: a\r\n" * 100] * 100]),
    "101 fields": (431, [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: a\r\n" * 100 + b"\r\n"]),
    "a name of 1 MiB": (431, [b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"a" * MIB]),
    "33 KiB together": (
        431,
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"X-A: " + b"a" * 1100 + b"\r\n") * 31 + b"\r\n"],
    ),
    "a target of 1 MiB": (414, [b"GET /", *[b"a" * 2**16] * 16]),
    "1 MiB of empty lines": (431, [b"\r\n" * 2**19]),
    "a trailer of 8 MiB": (
        431,
        [post(b"", "Transfer-Encoding: chunked", length=False), b"0\r\nX-A: ", *[b"a" * MIB] * 8],
    ),
    "a chunk extension of 8 MiB": (
        431,
        [post(b"", "Transfer-Encoding: chunked", length=False), b"5;a=", *[b"a" * MIB] * 8],
    ),
}


@pytest.mark.parametrize(("status", "parts"), BOMBS.values(), ids=BOMBS)
def test_a_head_without_end_is_refused(http: httpx.Client, status: int, parts: list[bytes]) -> None:
    with RawConnection(http) as connection:
        connection.send(*parts)
        assert connection.answer().status == status
        assert connection.has_ended()
    assert http.get("/health/live").status_code == 200


def test_a_head_of_30_kib_is_answered(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        large = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(30))
        connection.send(GET[:-2] + large[:10_000], large[10_000:] + b"\r\n")
        assert connection.answer().status == 200


# Slow clients


def test_a_connection_without_a_request_is_closed(http: httpx.Client) -> None:
    with RawConnection(http) as silent, RawConnection(http) as blank:
        blank.send(b"\r\n\r\n")
        assert silent.has_ended()
        assert blank.has_ended()


@pytest.mark.parametrize("answered", [0, 1], ids=["first request", "second request"])
def test_an_unfinished_head_is_answered_408(http: httpx.Client, answered: int) -> None:
    with RawConnection(http) as connection:
        for _ in range(answered):
            connection.send(GET)
            assert connection.answer().status == 200
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert connection.has_ended()


def test_a_head_that_arrives_byte_by_byte_has_no_more_time(http: httpx.Client) -> None:
    with RawConnection(http, patience_s=0.05) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\n")

        def has_answer() -> bool:
            try:
                connection.send(b"X-A: a\r\n")
                return bool(connection.socket.recv(1, socket.MSG_PEEK))
            except TimeoutError:
                return False

        wait_until(has_answer)
        assert connection.answer().status == 408


def test_600_clients_that_send_one_byte_of_their_body_take_no_slot(http: httpx.Client) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as held:
        slow = [held.enter_context(RawConnection(http)) for _ in range(600)]
        for connection in slow:
            connection.send(post(b"{", "Content-Length: 1000000", length=False))
        for number in range(20):
            assert http.post("/v1/embeddings", json={"input": str(number)}).status_code == 200
        answers = [connection.answer() for connection in slow]
        assert {answer.status for answer in answers} == {408}
        assert all("nothing of the request's body" in answer.json()["error"]["message"] for answer in answers)
        assert all(connection.has_ended() for connection in slow)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_body_left_unfinished_after_its_answer_ends_the_connection(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n", b"a")
        assert connection.answer().status == 200
        connection.send(b"a")
        assert connection.has_ended()


def test_a_body_finished_after_its_answer_leaves_the_connection_usable(http: httpx.Client) -> None:
    with RawConnection(http) as connection:
        connection.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n", b"a")
        assert connection.answer().status == 200
        connection.send(b"a", b"aa", GET)
        assert connection.answer().status == 200


@pytest.mark.parametrize("sent", [b"GET / HT", post(BODY)[:-3], post(BODY)], ids=["head", "body", "whole request"])
def test_a_client_that_closes_its_side_is_gone(http: httpx.Client, embedding: EmbeddingService, sent: bytes) -> None:
    embedding.latency_s = 60
    with RawConnection(http) as connection:
        connection.send(sent)
        if sent == post(BODY):
            wait_until(lambda: embedding.in_flight > 0)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.has_ended()
    wait_until(lambda: embedding.in_flight == 0)


def test_a_client_that_leaves_with_pipelined_requests_unanswered_is_gone(
    http: httpx.Client, embedding: EmbeddingService
) -> None:
    embedding.latency_s = 60
    with RawConnection(http) as connection:
        connection.send(post(BODY) * 3)
        wait_until(lambda: embedding.in_flight > 0)
    wait_until(lambda: embedding.in_flight == 0)
    assert embedding.cancelled == 1


def test_a_client_that_reads_no_answers_is_disconnected(
    http: httpx.Client, gateway_process: tuple[httpx.Client, int]
) -> None:
    with RawConnection(http) as connection:
        own = connection.socket.getsockname()[1]
        connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)

        def is_open() -> bool:
            workers = psutil.Process(gateway_process[1]).children(recursive=True)
            found = [each for worker in workers for each in worker.net_connections("tcp") if each.raddr]
            return any(each.raddr.port == own for each in found)

        wait_until(is_open)
        wait_until(lambda: not is_open())


# The end of the gateway


def test_on_sigterm_idle_connections_are_closed_and_busy_ones_answered(
    embedding: EmbeddingService, tmp_path: Path
) -> None:
    with ExitStack() as held:
        http, pid = held.enter_context(served("gateway.service:Gateway", ROOT, embedding.address, tmp_path, **NO_CACHE))
        idle, busy = held.enter_context(RawConnection(http)), held.enter_context(RawConnection(http))
        idle.send(GET)
        assert idle.answer().headers.get("connection") != "close"
        embedding.latency_s = 60
        busy.send(post(BODY))
        wait_until(lambda: embedding.in_flight > 0)
        psutil.Process(pid).send_signal(signal.SIGTERM)
        assert idle.has_ended()
        assert embedding.in_flight == 1
        embedding.latency_s = 0
        answer = busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert busy.has_ended()
