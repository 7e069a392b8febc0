"""Load: clients that send one request after another, and arrivals at a fixed rate. Every request is counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.load_generator.http_connection import HTTPConnection
from tests.resilience.outcomes import Outcome, Record, Tally
from tests.resilience.texts import Texts
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import ErrorKind, TorchlessError

PATIENCE_S = 3.0
"""Time past its deadline after which a request without an answer is lost."""
REFUSALS = frozenset({ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED})
"""Kinds that count as refused in every case."""


class Target(Protocol):
    """Whom a load asks."""

    async def ask(self, text: str, texts: Texts) -> Record:
        """Sends one request, and says what became of it. Raises nothing but CancelledError."""

    async def close(self) -> None:
        """Lets go of connections."""


class _Connection(HTTPConnection):
    """Also remembers the headers of the last answer."""

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._transport.is_closing() and getattr(self, "headers", {}).get("connection") != "close"


@dataclass
class HttpTarget:
    """The gateway's OpenAI route, over connections that are kept."""

    port: int
    deadline_s: float = 5.0
    """Deadline that each request names, in seconds."""
    refused_with_503: bool = False
    """Whether the case expects 503 with Retry-After, which then counts as refused."""
    path: str = "/v1/embeddings"
    _idle: list[_Connection] = field(default_factory=list)

    async def ask(self, text: str, texts: Texts) -> Record:
        """Sends one request, and says what became of it."""
        started = time.monotonic()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self.deadline_s + PATIENCE_S):
                connection = self._take() or await _Connection.open("127.0.0.1", self.port)
                status, body = await connection.exchange(self.message(text))
        except (OSError, TimeoutError) as error:
            self._drop(connection)
            reason = f"no answer: {type(error).__name__}"
            return Record(started, time.monotonic() - started, Outcome.LOST, reason)
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        seconds = time.monotonic() - started
        headers = connection.headers
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()
        outcome, reason = outcome_of(status, headers, body, text, texts, refused_with_503=self.refused_with_503)
        return Record(started, seconds, outcome, reason, headers.get("x-torchless-cache") == "hit")

    async def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def message(self, text: str) -> bytes:
        """The whole HTTP request."""
        body = json.dumps({"model": "", "input": text}).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"x-request-timeout-s: {self.deadline_s}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    @staticmethod
    def _drop(connection: _Connection | None) -> None:
        if connection is not None:
            connection.close()


def outcome_of(
    status: int, headers: Mapping[str, str], body: bytes, text: str, texts: Texts, *, refused_with_503: bool = False
) -> tuple[Outcome, str]:
    """What became of a request for `text`, from its HTTP answer, and why."""
    if status == 200:
        try:
            vector = json.loads(body)["data"][0]["embedding"]
        except (ValueError, LookupError, TypeError):
            return Outcome.LOST, "200 without a vector"
        if not texts.is_answer(text, vector):
            return Outcome.LOST, "200 with the vector of something else"
        degraded = "x-torchless-degraded" in headers
        return (Outcome.DEGRADED, "degraded") if degraded else (Outcome.ANSWERED, "")
    reason = f"{status} {_code(body)}"
    if "retry-after" in headers and (status == 429 or (status == 503 and refused_with_503)):
        return Outcome.REFUSED, reason
    return Outcome.FAILED, reason


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "without a code"


@dataclass
class GrpcTarget:
    """The typed client, as another team's program has it."""

    client: EmbeddingClient
    deadline_s: float = 5.0
    """Deadline of each call, in seconds."""
    refused_kinds: frozenset[ErrorKind] = REFUSALS
    """Kinds that count as refused."""

    async def ask(self, text: str, texts: Texts) -> Record:
        """Sends one request, and says what became of it."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.deadline_s + PATIENCE_S):
                answer = await self.client.embed([text], context=CallContext(deadline=Deadline.after(self.deadline_s)))
        except TimeoutError:
            return Record(started, time.monotonic() - started, Outcome.LOST, "no answer: TimeoutError")
        except TorchlessError as error:
            outcome = Outcome.REFUSED if error.kind in self.refused_kinds else Outcome.FAILED
            return Record(started, time.monotonic() - started, outcome, f"gRPC {error.kind.value}")
        seconds = time.monotonic() - started
        if len(answer.vectors) != 1 or not texts.is_answer(text, answer.vectors[0]):
            return Record(started, seconds, Outcome.LOST, "the vector of something else")
        return Record(started, seconds, Outcome.ANSWERED)

    async def close(self) -> None:
        """Closes the client."""
        await self.client.close()


class Load:
    """Sends requests to a target until it is stopped.

    Args:
        target: Whom.
        texts: For what.
        tally: Where each request is counted.
        first: Number of the first request.
    """

    def __init__(self, target: Target, texts: Texts, tally: Tally, *, first: int = 0) -> None:
        self._target = target
        self._texts = texts
        self._tally = tally
        self._numbers: Iterator[int] = itertools.count(first)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """No request is sent from now on; those on their way are waited for."""
        self._stopping.set()

    async def clients(self, count: int, *, pause_s: float = 0.0) -> None:
        """Closed loop: `count` clients that each send the next request once the last has its outcome.

        Args:
            count: How many.
            pause_s: Time that each thinks between two requests, in seconds.
        """
        await asyncio.gather(*(self._client(pause_s) for _ in range(count)))

    async def arrivals(self, rate: float) -> None:
        """Open loop: `rate` requests a second, evenly, whatever becomes of those before."""
        start, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as requests:
            while not self._stopping.is_set():
                due = int((time.monotonic() - start) * rate)
                for _ in range(due - sent):
                    requests.create_task(self._ask())
                sent = max(sent, due)
                await asyncio.sleep(max(0.001, start + (sent + 1) / rate - time.monotonic()))

    async def _client(self, pause_s: float) -> None:
        while not self._stopping.is_set():
            await self._ask()
            # A client that is refused at once would ask without pause.
            await asyncio.sleep(max(pause_s, 0.001))

    async def _ask(self) -> None:
        text = self._texts.text(next(self._numbers))
        self._tally.records.append(await self._target.ask(text, self._texts))


@asynccontextmanager
async def clients(
    target: Target, texts: Texts, tally: Tally, count: int, *, pause_s: float = 0.0
) -> AsyncIterator[Load]:
    """Load by `count` clients while the block runs; what is on its way at its end is waited for."""
    load = Load(target, texts, tally)
    async with _running(load, target, load.clients(count, pause_s=pause_s)):
        yield load


@asynccontextmanager
async def arrivals(target: Target, texts: Texts, tally: Tally, rate: float) -> AsyncIterator[Load]:
    """Load of `rate` requests a second while the block runs; what is on its way at its end is waited for."""
    load = Load(target, texts, tally)
    async with _running(load, target, load.arrivals(rate)):
        yield load


@asynccontextmanager
async def _running(load: Load, target: Target, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
        load.stop()
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await target.close()
