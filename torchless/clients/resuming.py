"""A stream of requests and answers that outlives the endpoint that it runs on.

Each request has one answer, in order. What an endpoint that is lost had not answered is sent again to the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from torchless.clients.call import CallContext
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.endpoints.health import Health
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.retry import pause_s
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import our_errors, unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

Request = TypeVar("Request")
Response = TypeVar("Response")
_PASSING = frozenset({ErrorKind.UNREACHABLE, ErrorKind.CIRCUIT_OPEN, ErrorKind.OVERLOADED, ErrorKind.GPU_UNAVAILABLE})
"""Errors that another endpoint, or the same one later, may not have."""
_END: Any = object()


class ResumingStream(Generic[Stub, Request, Response]):
    """One stream over as many calls as it takes.

    Args:
        capability: Name of the capability, for messages.
        pool: Its endpoints.
        settings: How long to try.
        method: Takes the method to be called from a stub.
        context: For whom, and how long they wait in all.
    """

    def __init__(
        self,
        capability: str,
        pool: EndpointPool[Stub],
        settings: ClientSettings,
        method: Callable[[Stub], Any],
        context: CallContext,
    ) -> None:
        self._capability = capability
        self._pool = pool
        self._settings = settings
        self._method = method
        self._context = context
        self._expires = None if context.deadline_s is None else time.monotonic() + context.deadline_s
        self._unanswered: deque[Request] = deque()
        self._answered = 0
        self._failures = 0
        self._last_answer = time.monotonic()

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Response, None]:
        """The answers to `requests`, in their order.

        Raises:
            TorchlessError: As the service, or UNREACHABLE once no endpoint has answered for `retry.stream_patience_s`.
            Exception: What `requests` raises, after the answers to what came before.
        """
        source = _Source(requests)
        try:
            while not source.ended or self._unanswered:
                before = self._answered
                try:
                    async with aclosing(self._over_one_endpoint(source)) as answers:
                        async for answer in answers:
                            yield answer
                except TorchlessError as error:
                    await self._wait_after(error)
                else:
                    if self._answered == before and self._unanswered:
                        await self._wait_after(unreachable(self._capability))
            source.raise_failure()
        finally:
            source.close()

    async def _over_one_endpoint(self, source: _Source[Request]) -> AsyncGenerator[Response, None]:
        left_s = None if self._expires is None else self._expires - time.monotonic()
        endpoint, ticket = await self._pool.pick(left_s or self._settings.deadline_s)
        with endpoint.call(ticket, timed=False), our_errors(self._capability):
            call = self._method(endpoint.stub)(
                self._sent(source, endpoint), timeout=left_s, metadata=self._context.metadata()
            )
            try:
                async for answer in call:
                    # A trial has passed with its first answer, not when a day's work is done.
                    ticket.answered()
                    self._count_answer()
                    yield answer
            finally:
                call.cancel()  # a caller who leaves early is not computed for

    async def _sent(self, source: _Source[Request], endpoint: Endpoint[Stub]) -> AsyncIterator[Request]:
        for request in list(self._unanswered):
            yield request
        # One that leaves answers what it has, and gets nothing new.
        while endpoint.health is not Health.NOT_SERVING:
            request = await source.next()
            if request is _END:
                return
            self._unanswered.append(request)
            yield request

    def _count_answer(self) -> None:
        if not self._unanswered:
            raise TorchlessError(ErrorKind.INTERNAL, f"the {self._capability} service answered more than it was asked")
        self._unanswered.popleft()
        self._answered += 1
        self._failures, self._last_answer = 0, time.monotonic()

    async def _wait_after(self, error: TorchlessError) -> None:
        """Until the next try; raises `error` if there is to be none."""
        now = time.monotonic()
        self._failures += 1
        wait_s = pause_s(self._failures, self._settings.retry)
        if error.kind is not ErrorKind.UNREACHABLE and error.retry_after_s is not None:
            wait_s = max(wait_s, min(error.retry_after_s, self._settings.retry.max_s))
        ends = self._last_answer + self._settings.retry.stream_patience_s
        if self._expires is not None:
            ends = min(ends, self._expires)
        if error.kind not in _PASSING or now + wait_s > ends:
            raise error
        self._pool.look_again()
        await asyncio.sleep(wait_s)


class _Source(Generic[Request]):
    """Reads the caller's requests one at a time, and loses none when the call that asked for it ends."""

    def __init__(self, requests: AsyncIterable[Request]) -> None:
        self._iterator = aiter(requests)
        self._coming: asyncio.Future[Request] | None = None
        self._failure: Exception | None = None
        self.ended = False
        """Whether there are no more."""

    async def next(self) -> Request:
        """The next one; `_END` when there is none, or reading it failed."""
        if self.ended:
            return _END  # type: ignore[no-any-return]
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._iterator, _END))
        try:
            request = await asyncio.shield(self._coming)
        except Exception as error:
            self._failure, request = error, _END
        self._coming = None
        self.ended = request is _END
        return request

    def raise_failure(self) -> None:
        """Raises what the caller's requests raised."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stops reading."""
        if self._coming is not None:
            self._coming.cancel()
