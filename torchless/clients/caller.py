"""Makes calls: picks an endpoint, makes an attempt, and retries it elsewhere, all before the caller's deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message
from prometheus_client import Counter

from torchless.clients.adaptive_limit import AdaptiveLimit, Permit
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.endpoints.breaker import Ticket
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.metrics import ClientMetrics
from torchless.clients.retry import RetryBudget, RetryPlan, plan_retry
from torchless.clients.settings import ClientSettings
from torchless.clients.streams.resumable_stream import ResumableStream
from torchless.clients.translate import out_of_time
from torchless.contracts.errors import ErrorKind, TorchlessError

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Method = Callable[[Stub], "grpc.aio.UnaryUnaryMultiCallable[Request, Response]"]
"""Takes the method to call from a stub."""


class Caller(Generic[Stub]):
    """Calls the methods of one service.

    Args:
        capability: Name of the capability, for messages and metrics.
        pool: Its endpoints.
        settings: Deadline, retries and concurrency limit.
        metrics: Where calls are counted.
    """

    def __init__(
        self, capability: str, pool: EndpointPool[Stub], settings: ClientSettings, metrics: ClientMetrics
    ) -> None:
        self._capability = capability
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._outcomes: dict[str, Counter] = {}
        self._seconds = metrics.seconds.labels(capability)
        self._budget = RetryBudget(settings.retry)
        show_limit = metrics.concurrency_limit.labels(capability).set
        self._limit = AdaptiveLimit(settings.concurrency, capability, on_change=show_limit)

    def reconfigure(self, settings: ClientSettings) -> None:
        """Applies other settings to calls from now on."""
        self._settings = settings
        self._budget.reconfigure(settings.retry)
        self._limit.reconfigure(settings.concurrency)

    def deadline_of(self, context: CallContext) -> Deadline:
        """The deadline of a call that begins now: that of `context`, or the default of the settings."""
        return context.deadline or Deadline.after(self._settings.deadline_s)

    def admitted(self) -> Permit:
        """A `with` block around the work for one request, within the limit on calls in flight.

        Raises:
            TorchlessError: On entering, OVERLOADED when the limit is reached.
        """
        return self._limit.call()

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
            method: The method to call.
            request: Its request.
            context: Tenant, request id, trace and deadline.
            repeatable: Whether the call may run twice, when the first answer is lost or late.
            is_admitted: Whether the call is part of work that `admitted` has let in.

        Raises:
            TorchlessError: As the service; UNREACHABLE, CIRCUIT_OPEN or DEADLINE; OVERLOADED by the limit.
        """
        started = time.monotonic()
        outcome = "CANCELLED"  # stays so when the caller disconnects
        try:
            if is_admitted:
                response = await self._until_answered(method, request, context, repeatable=repeatable)
            else:
                with self._limit.call():
                    response = await self._until_answered(method, request, context, repeatable=repeatable)
            outcome = "OK"
            return response
        except TorchlessError as error:
            outcome = error.kind.value
            raise
        finally:
            self._count(outcome, time.monotonic() - started)

    async def unary_stream(
        self, method: Callable[[Stub], Any], request: Message, context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The answers of one endpoint to `request`; there is no deadline unless `context` has one.

        Raises:
            TorchlessError: As the service; UNREACHABLE, CIRCUIT_OPEN or DEADLINE.
        """
        endpoint, ticket = await self._pool.pick(self.deadline_of(context))
        with endpoint.call(ticket, timed=False):
            timeout_s = None if context.deadline is None else context.deadline.timeout_s
            call = method(endpoint.stub)(request, timeout=timeout_s, metadata=context.metadata())
            with endpoint.stream(call):
                async for answer in call:
                    ticket.answered()  # a half-open probe succeeds with its first answer
                    yield answer

    def resumable_stream(
        self, method: Callable[[Stub], Any], requests: AsyncIterable[Message], context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The answers to `requests`, one each, over as many endpoints as necessary; see `ResumableStream`."""
        stream: ResumableStream[Stub, Message, Any] = ResumableStream(
            self._capability, self._pool, self._settings, method, context
        )
        return stream.answers(requests)

    async def _until_answered(
        self, method: Method[Stub, Request, Response], request: Request, context: CallContext, *, repeatable: bool
    ) -> Response:
        deadline, metadata, size = self.deadline_of(context), context.metadata(), request.ByteSize()
        self._budget.add_call()
        tried: list[Endpoint[Stub]] = []
        plan: RetryPlan | None = None
        failure: TorchlessError | None = None
        try:
            while True:
                if failure is None or plan is None:
                    endpoint, ticket = await self._pool.pick(deadline, size=size)
                else:
                    endpoint, ticket = await self._pick_again(deadline, size, tried, plan, failure)
                tried.append(endpoint)
                try:
                    with endpoint.call(ticket):
                        call: Any = method(endpoint.stub)(request, timeout=deadline.timeout_s, metadata=metadata)
                        response: Response | None = await call
                        if response is None:
                            # When a response arrives as the deadline passes, gRPC can report OK without its message.
                            raise out_of_time(self._capability)
                        return response
                except TorchlessError as error:
                    failure = error
                if failure.kind is ErrorKind.UNREACHABLE:
                    self._pool.refresh()
                plan = plan_retry(failure, len(tried), self._settings.retry, repeatable=repeatable)
                if plan is None or plan.pause_s >= deadline.remaining_s or not self._may_retry():
                    raise failure
                await asyncio.sleep(plan.pause_s)
        finally:
            failure = None  # its traceback holds this frame: a cycle, which only the garbage collector would undo

    async def _pick_again(
        self, deadline: Deadline, size: int, tried: list[Endpoint[Stub]], plan: RetryPlan, failure: TorchlessError
    ) -> tuple[Endpoint[Stub], Ticket]:
        """The endpoint for a retry; raises `failure` if there is none."""
        kind = failure.kind
        try:
            picked = await self._pool.pick(deadline, tried, only_others=plan.only_others, size=size)
        except TorchlessError:
            # The error of the last attempt says more than that no other endpoint is left.
            self._budget.give_back()
            raise failure from None
        finally:
            del failure  # as in `_until_answered`
        self._metrics.retries.labels(self._capability, kind.value).inc()
        return picked

    def _may_retry(self) -> bool:
        if self._budget.take():
            return True
        self._metrics.retries_denied.labels(self._capability).inc()
        return False

    def _count(self, outcome: str, seconds: float) -> None:
        counter = self._outcomes.get(outcome)
        if counter is None:
            counter = self._outcomes[outcome] = self._metrics.calls.labels(self._capability, outcome)
        counter.inc()
        self._seconds.observe(seconds)
