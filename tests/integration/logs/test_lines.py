"""The log of a gateway and an embedding bento in separate processes, read line by line."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.resilience.processes import Gateway, Process, StubBento
from tests.resilience.stub.faults import Faults
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbeddingClient, EmbedOptions
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.workers import WORKER_ENDED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
KEY = "sk-a-key-that-is-secret"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
SECRET = "Pelargonium"
"""A word that occurs in what the tests send, and nowhere else."""


class Stack:
    """A gateway and a bento at `log.level: DEBUG`.

    Args:
        folder: Where they write.
        text_ms: Time of a text, in milliseconds.
    """

    def __init__(self, folder: Path, text_ms: float) -> None:
        self.bento = StubBento("embedding", folder, text_ms=text_ms, LOG__LEVEL="DEBUG")
        self.settings: dict[str, Any] = {
            "embedding": {"address": self.bento.address},
            "reranking": {"address": ""},
            "gpu": {"address": ""},
            "cache": {"enabled": False},
            "auth": {"api_keys": [{"key": KEY, "tenant": "acme"}]},
            "log": {"level": "DEBUG"},
        }
        self.gateway = Gateway(folder, self.settings)

    async def start(self) -> None:
        """Returns once both serve."""
        await self.bento.start()
        await self.gateway.start()
        async with self.http() as http:

            async def embeds() -> bool:
                return (await http.post("/embed", json={"inputs": "ready"})).status_code == 200

            await until(embeds, within_s=30)

    def http(self, **headers: str) -> httpx.AsyncClient:
        """A client with a valid key."""
        own = {"authorization": f"Bearer {KEY}", **headers}
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.gateway.port}", headers=own, timeout=30)

    async def reload(self, **log: Any) -> None:
        """Changes the gateway's settings of the log while it runs."""
        before = self.gateway.log.read_text().count("changed settings are in force")
        self.gateway.write(yaml.safe_dump({**self.settings, "log": log}))
        await until(lambda: self.gateway.log.read_text().count("changed settings are in force") > before, within_s=30)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Started once; a test finds its own lines by its request ids."""
    made = Stack(tmp_path_factory.mktemp("logs"), text_ms=20.0)
    asyncio.run(made.start())
    yield made
    made.gateway.end()
    made.bento.end()


@asynccontextmanager
async def reloaded(stack: Stack, **log: Any) -> AsyncIterator[None]:
    await stack.reload(**log)
    yield
    await stack.reload(level="DEBUG")


def lines(process: Process) -> list[dict[str, Any]]:
    """Every line of its log; each has to be a JSON object."""
    found = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert all({"time", "level", "service", "logger", "message"} <= set(line) for line in found)
    return found


def of(process: Process, request_id: str) -> list[dict[str, Any]]:
    """The lines of requests and calls with that id, without what differs each time."""
    return [
        line
        for line in lines(process)
        if line["message"] in {"request", "call"}
        and request_id in (line.get("request_id"), *line.get("request_ids", []))
    ]


async def line_of(process: Process, request_id: str) -> dict[str, Any]:
    """The only line of a request, once it is there."""
    await until(lambda: bool(of(process, request_id)), lambda: process.log.read_text()[-4000:], within_s=10)
    (line,) = of(process, request_id)
    return line


async def test_request_can_be_followed_from_the_gateway_to_the_bento(stack: Stack) -> None:
    async with stack.http() as http:
        headers = {"x-request-id": "follow-1", "traceparent": TRACEPARENT}
        answer = await http.post("/v1/embeddings?q=1", json={"input": ["one", "two words"]}, headers=headers)
    assert answer.headers["x-request-id"] == "follow-1"
    line, call = await line_of(stack.gateway, "follow-1"), await line_of(stack.bento, "follow-1")
    tokens = answer.json()["usage"]["total_tokens"]
    shared = {"level": "info", "request_id": "follow-1", "trace_id": TRACE, "tenant": "acme", "model": "tests/stub"}
    shared |= {"items": 2, "tokens": tokens}
    assert line.items() >= {**shared, "service": "gateway", "method": "POST", "route": "/v1/embeddings"}.items()
    assert call.items() >= {**shared, "service": "stub", "method": "GenerateEmbeddings", "status": "OK"}.items()
    assert line["status"] == 200
    for times in (line, call):
        assert times["queue_ms"] >= 0
        assert times["tokenization_ms"] >= 0
        assert 40 <= times["inference_ms"] <= times["total_ms"]


async def test_each_request_of_a_joined_call_is_in_the_bentos_log(stack: Stack) -> None:
    ids = [f"joined-{number}" for number in range(12)]
    async with stack.http() as http:
        await asyncio.gather(
            *(http.post("/embed", json={"inputs": f"text {each}"}, headers={"x-request-id": each}) for each in ids)
        )
    for each in ids:
        assert (await line_of(stack.gateway, each))["status"] == 200
    calls = [await line_of(stack.bento, each) for each in ids]
    assert any(len(call.get("request_ids", [])) > 1 for call in calls)
    joined = next(call for call in calls if "request_ids" in call)
    assert joined["items"] == len(joined["request_ids"])
    assert joined["tenant"] == "acme"


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v1/embeddings", {"input": "a", "model": "no/such"}, 404, "NOT_FOUND"),
        ("/v1/embeddings", {"input": []}, 400, "INVALID_INPUT"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 503, "UNREACHABLE"),
    ],
)
async def test_error_is_a_line_with_its_kind(stack: Stack, path: str, body: Any, status: int, error: str) -> None:
    request_id = f"error-{status}"
    async with stack.http() as http:
        answer = await http.post(path, json=body, headers={"x-request-id": request_id})
    assert answer.status_code == status
    line = await line_of(stack.gateway, request_id)
    assert (line["status"], line["route"], line["error"]) == (status, path, error)
    assert line["level"] == ("error" if status >= 500 else "warning")


async def test_refused_key_and_unknown_route_are_lines(stack: Stack) -> None:
    async with stack.http(authorization="Bearer wrong") as http:
        headers = {"x-request-id": "refused-1", "traceparent": TRACEPARENT}
        await http.post("/embed", json={"inputs": "a"}, headers=headers)
        await http.get(f"/nothing/{SECRET}", headers={"x-request-id": "refused-2"})
    line = await line_of(stack.gateway, "refused-1")
    assert (line["status"], line["error"], line["trace_id"]) == (401, "UNAUTHENTICATED", TRACE)
    line = await line_of(stack.gateway, "refused-2")
    assert (line["status"], line["route"]) == (404, "unmatched")


async def test_disconnected_client_is_a_line_in_both(stack: Stack) -> None:
    body = json.dumps({"inputs": ["a text"] * 500}).encode()
    head = f"POST /embed HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nx-request-id: gone-1\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.gateway.port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        await asyncio.sleep(0.5)
    line, call = await line_of(stack.gateway, "gone-1"), await line_of(stack.bento, "gone-1")
    assert (line["status"], line["level"], line["items"]) == (499, "info", 500)
    assert (call["status"], call["level"], call["items"]) == ("CANCELLED", "info", 500)


@pytest.mark.parametrize("hostile", ['x\t{"level":"error"}', "x y", "x\u00e9", "x" * 129, "x,y", '"', "x;\x7f"])
async def test_hostile_request_id_is_replaced(stack: Stack, hostile: str) -> None:
    async with stack.http() as http:
        headers = [(b"x-request-id", hostile.encode("latin-1"))]
        answer = await http.post("/embed", json={"inputs": "a"}, headers=headers)
    if answer.status_code == 400:  # uvicorn refuses some characters itself
        assert "x-request-id" not in answer.headers
        return
    given = answer.headers["x-request-id"]
    assert len(given) == 32
    assert given.isalnum()
    assert (await line_of(stack.gateway, given))["status"] == 200


async def test_health_and_metrics_are_logged_at_debug(stack: Stack) -> None:
    async with stack.http() as http:
        for number, path in enumerate(("/health/live", "/health/ready", "/metrics", "/docs")):
            await http.get(path, headers={"x-request-id": f"routine-{number}"})
            line = await line_of(stack.gateway, f"routine-{number}")
            assert (line["level"], line["route"]) == ("debug", path)
        async with reloaded(stack, level="INFO"):
            await http.get("/health/live", headers={"x-request-id": "routine-at-info"})
            await http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": "request-at-info"})
            await line_of(stack.gateway, "request-at-info")
    assert of(stack.gateway, "routine-at-info") == []


async def test_sampling_changes_while_the_gateway_runs(stack: Stack) -> None:
    async with stack.http() as http, reloaded(stack, level="INFO", sample=0.0, slow_ms=60_000.0):
        for number in range(5):
            await http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": f"sampled-{number}"})
        await http.post("/embed", json={"inputs": []}, headers={"x-request-id": "sampled-error"})
        await line_of(stack.gateway, "sampled-error")
        await stack.reload(level="INFO", sample=0.0, slow_ms=1.0)
        await http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": "sampled-slow"})
        await line_of(stack.gateway, "sampled-slow")
    assert [of(stack.gateway, f"sampled-{number}") for number in range(5)] == [[]] * 5


async def test_no_text_vector_or_key_is_in_any_line(stack: Stack) -> None:
    async with stack.http(**{"x-marker": SECRET}) as http:
        answer = await http.post("/embed", json={"inputs": f"{SECRET} in a text"})
        numbers = [number for number in json.loads(answer.text, parse_float=str)[0] if len(str(number)) > 8]
        statuses = {(await http.post(f"{path}?note={SECRET}", json=body)).status_code for path, body in _bodies()}
        await http.post("/embed", content=f'{{"inputs": "{SECRET}'.encode())
        await http.get(f"/v1/models/{SECRET}%20a")
        stack.bento.set(Faults(failure=ErrorKind.INTERNAL))
        statuses.add((await http.post("/embed", json={"inputs": SECRET})).status_code)
        stack.bento.set()
    async with stack.http(authorization=f"Bearer {SECRET}-wrong-key") as http:
        await http.post("/embed", json={"inputs": "a"}, headers={"x-request-id": "secrets-last"})
    await line_of(stack.gateway, "secrets-last")
    assert numbers
    assert statuses >= {200, 404, 413, 422, 424}, "424: the bento failed"
    for process in (stack.gateway, stack.bento):
        log = process.log.read_text()
        assert KEY not in log
        assert SECRET not in log
        assert not [number for number in numbers if number in log]


def _bodies() -> Iterator[tuple[str, Any]]:
    text = f"{SECRET} in a text"
    yield "/embed", {"inputs": [text, text]}
    yield "/embed", {"inputs": text, "prompt_name": text}
    yield "/embed", {"inputs": {text: text}}
    yield "/embed", {"inputs": text, text: text}
    yield "/embed", {"inputs": text * 10_000}
    yield "/embed_all", {"inputs": text}
    yield "/similarity", {"inputs": {"source_sentence": text, "sentences": [text]}}
    yield "/tokenize", {"inputs": text}
    yield "/v1/embeddings", {"input": text, "model": text}
    yield "/v1/embeddings", {"input": text, "dimensions": 10**6}
    yield "/v1/embeddings", {"input": text, "encoding_format": text}
    yield "/v2/embed", {"texts": [text], "model": text, "input_type": "search_query", "embedding_types": ["int8"]}
    yield "/rerank", {"query": text, "texts": [text]}
    yield "/v1/rerank", {"query": text, "documents": [text], "model": text}


async def test_level_of_a_bento_changes_while_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "stub.yaml"
    file.write_text("log: {level: INFO}")
    bento = StubBento("embedding", tmp_path, text_ms=1.0, CONFIG=str(file))
    try:
        await bento.start()
        async with EmbeddingClient(bento.address) as client:
            await client.embed(["a"], context=CallContext("at-info"))
            await line_of(bento, "at-info")
            file.write_text("log: {level: WARNING}")
            await until(lambda: "changed settings are in force" in bento.log.read_text(), within_s=10)
            await client.embed(["a"], context=CallContext("at-warning"))
            with pytest.raises(TorchlessError):
                await client.embed(["a"], EmbedOptions(model="none"), CallContext("refused"))
            await line_of(bento, "refused")
        assert of(bento, "at-warning") == []
    finally:
        bento.end()


async def test_supervisor_writes_json_about_a_killed_worker(tmp_path: Path) -> None:
    gateway = Stack(tmp_path, text_ms=1.0).gateway
    try:
        await gateway.start()
        (worker, *_) = psutil.Process(gateway.pid).children(recursive=True)
        worker.send_signal(signal.SIGKILL)
        await until(lambda: any(WORKER_ENDED in line["message"] for line in lines(gateway)), within_s=30)
        await gateway.until_it_answers()
        assert await gateway.terminate() == 0
        assert {line["service"] for line in lines(gateway)} == {"gateway"}
    finally:
        gateway.end()
