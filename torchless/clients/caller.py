"""Makes a call: an endpoint, an attempt, and another one where that may help, all within the caller's deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from torchless.clients.adaptive_limit import AdaptiveLimit
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.endpoints.breaker import Ticket
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.metrics import ClientMetrics
from torchless.clients.retry import Again, RetryBudget, next_attempt
from torchless.clients.settings import ClientSettings
from torchless.clients.streams.resumable_stream import ResumingStream
from torchless.clients.translate import our_errors
from torchless.contracts.errors import ErrorKind, TorchlessError

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Method = Callable[[Stub], "grpc.aio.UnaryUnaryMultiCallable[Request, Response]"]
"""Takes the method to be called from a stub."""


class Caller(Generic[Stub]):
    """Calls methods of one capability.

    Args:
        capability: Its name, for messages and metrics.
        pool: Its endpoints.
        settings: Deadline and retries.
        metrics: Where calls are counted.
    """

    def __init__(
        self, capability: str, pool: EndpointPool[Stub], settings: ClientSettings, metrics: ClientMetrics
    ) -> None:
        self._capability = capability
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._budget = RetryBudget(settings.retry)
        self._limit = AdaptiveLimit(settings.concurrency, capability)
        self._shown_limit = metrics.concurrency_limit.labels(capability)

    def reconfigure(self, settings: ClientSettings) -> None:
        """Other settings for calls from now on."""
        self._settings = settings
        self._budget.reconfigure(settings.retry)
        self._limit.reconfigure(settings.concurrency)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Around the work for one caller, of which the limit on calls in flight allows so much.

        Raises:
            TorchlessError: OVERLOADED, when there is no room.
        """
        try:
            with self._limit.call():
                yield
        finally:
            self._shown_limit.set(self._limit.value)

    async def unary(
        self,
        method: Method[Stub, Request, Response],
        request: Request,
        context: CallContext,
        *,
        repeatable: bool = True,
        is_admitted: bool = False,
    ) -> Response:
        """The answer of one endpoint to `request`.

        Args:
            method: What is called.
            request: With what.
            context: For whom, and how long they wait.
            repeatable: Whether the call may be made twice, when the first answer is lost or late.
            is_admitted: Whether it is part of work that `admitted` has let in.

        Raises:
            TorchlessError: As the service, UNREACHABLE, CIRCUIT_OPEN, DEADLINE, or OVERLOADED by our own limit.
        """
        started = time.monotonic()
        outcome = "CANCELLED"  # what it stays when the caller hangs up
        try:
            with nullcontext() if is_admitted else self.admitted():
                response = await self._until_answered(method, request, context, repeatable=repeatable)
            outcome = "OK"
            return response
        except TorchlessError as error:
            outcome = error.kind.value
            raise
        finally:
            self._metrics.calls.labels(self._capability, outcome).inc()
            self._metrics.seconds.labels(self._capability).observe(time.monotonic() - started)

    async def unary_stream(
        self, method: Callable[[Stub], Any], request: Message, context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The answers of one endpoint to `request`; without a deadline unless `context` has one.

        Raises:
            TorchlessError: As the service, UNREACHABLE, CIRCUIT_OPEN or DEADLINE.
        """
        endpoint, ticket = await self._pool.pick(self.deadline_of(context))
        with endpoint.call(ticket, timed=False), our_errors(self._capability):
            timeout_s = None if context.deadline is None else context.deadline.timeout_s
            call = method(endpoint.stub)(request, timeout=timeout_s, metadata=context.metadata())
            with endpoint.stream(call):
                async for answer in call:
                    ticket.answered()  # a probe has passed with its first answer
                    yield answer

    def resuming(
        self, method: Callable[[Stub], Any], requests: AsyncIterable[Message], context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The answers to `requests`, one each, over as many endpoints as it takes; see `ResumingStream`."""
        stream: ResumingStream[Stub, Message, Any] = ResumingStream(
            self._capability, self._pool, self._settings, method, context
        )
        return stream.answers(requests)

    async def _until_answered(
        self,
        method: Method[Stub, Request, Response],
        request: Request,
        context: CallContext,
        *,
        repeatable: bool,
    ) -> Response:
        self._budget.call()
        attempt = _Attempt(method, request, context, self.deadline_of(context))
        tried: list[Endpoint[Stub]] = []
        again: Again | None = None
        failure: TorchlessError | None = None
        try:
            while True:
                endpoint, ticket = await self._picked(attempt, tried, again, failure)
                tried.append(endpoint)
                try:
                    return await self._made(attempt, endpoint, ticket)
                except TorchlessError as error:
                    failure = error
                if failure.kind is ErrorKind.UNREACHABLE:
                    self._pool.look_again()
                again = next_attempt(failure, len(tried), self._settings.retry, repeatable=repeatable)
                if again is None or again.pause_s >= attempt.deadline.remaining_s or not self._may_retry():
                    raise failure
                await asyncio.sleep(again.pause_s)
        finally:
            failure = None  # its trace holds this frame: a circle, which only the garbage collector would undo

    async def _picked(
        self,
        attempt: _Attempt[Stub, Request, Response],
        tried: list[Endpoint[Stub]],
        again: Again | None,
        failure: TorchlessError | None,
    ) -> tuple[Endpoint[Stub], Ticket]:
        """Where the next attempt is made; raises `failure` if there is nobody for another one."""
        try:
            only_others = again is not None and again.only_others
            picked = await self._pool.pick(attempt.deadline, tried, only_others=only_others, size=attempt.size)
        except TorchlessError:
            if failure is None:
                raise
            # That nobody else is there says less than what the last one answered.
            self._budget.give_back()
            raise failure from None
        finally:
            kind, failure = failure.kind if failure else None, None
        if kind is not None:
            self._metrics.retries.labels(self._capability, kind.value).inc()
        return picked

    def deadline_of(self, context: CallContext) -> Deadline:
        """The deadline of a call that begins now: the context's, or the default of the settings."""
        return context.deadline or Deadline.after(self._settings.deadline_s)

    async def _made(
        self, attempt: _Attempt[Stub, Request, Response], endpoint: Endpoint[Stub], ticket: Ticket
    ) -> Response:
        with endpoint.call(ticket), our_errors(self._capability):
            return await attempt.at(endpoint)

    def _may_retry(self) -> bool:
        if self._budget.take():
            return True
        self._metrics.retries_denied.labels(self._capability).inc()
        return False


class _Attempt(Generic[Stub, Request, Response]):
    """What every attempt of a call sends."""

    def __init__(
        self, method: Method[Stub, Request, Response], request: Request, context: CallContext, deadline: Deadline
    ) -> None:
        self._method = method
        self._request = request
        self._metadata = context.metadata()
        self.deadline = deadline
        """Until when its caller waits."""
        self.size = request.ByteSize()
        """Size of the request, in bytes."""

    async def at(self, endpoint: Endpoint[Stub]) -> Response:
        """The answer of `endpoint`."""
        call: Any = self._method(endpoint.stub)(self._request, timeout=self.deadline.timeout_s, metadata=self._metadata)
        response: Response = await call
        return response
