"""A stream of requests and answers that outlives the endpoint that it runs on.

Each request has one answer, in order. What an endpoint that is lost had not answered is sent again to the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import grpc

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.retry import pause_s
from torchless.clients.settings import ClientSettings
from torchless.clients.streams.call_status import Ending
from torchless.clients.streams.idle_timeout import Patience, Unanswered
from torchless.clients.translate import our_errors, out_of_time, unreachable
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
        self._deadline = context.deadline or Deadline.NEVER
        self._unanswered: Unanswered[Request] = Unanswered()
        self._patience = Patience(capability, pool, settings, self._unanswered)
        self._answered = 0
        self._failures = 0
        self._endpoint: Endpoint[Stub] | None = None
        self._tried: list[Endpoint[Stub]] = []

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Response, None]:
        """The answers to `requests`, in their order.

        Raises:
            TorchlessError: As the service; once nothing was answered for `retry.stream_idle_timeout_s` what the last
                endpoint failed with, or DEADLINE when it was silent.
            Exception: What `requests` raises, after the answers to what came before.
        """
        source = _Source(requests)
        try:
            while await self._something_is_unanswered(source):
                before = self._answered
                try:
                    async with aclosing(self._over_one_endpoint(source)) as answers:
                        async for answer in answers:
                            yield answer
                    if self._answered == before:
                        raise unreachable(self._capability)
                except TorchlessError as error:
                    if not await self._goes_on_after(error):
                        raise
            source.raise_failure()
        finally:
            await source.close()

    async def _something_is_unanswered(self, source: _Source[Request]) -> bool:
        """Waits for a request if there is none: no endpoint is kept waiting for it meanwhile."""
        if not self._unanswered:
            coming = source.coming()
            done, _ = await asyncio.wait({coming}, timeout=self._deadline.timeout_s)
            if not done:
                raise out_of_time(self._capability)
            request = source.take()
            if request is _END:
                return False
            self._unanswered.add(request)
        return True

    async def _over_one_endpoint(self, source: _Source[Request]) -> AsyncGenerator[Response, None]:
        self._endpoint = None
        deadline = self._context.deadline or Deadline.after(self._settings.deadline_s)
        endpoint, ticket = await self._pool.pick(deadline, self._tried)
        self._endpoint = endpoint
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with endpoint.call(ticket, timed=False), our_errors(self._capability):
            call = self._method(endpoint.stub)(
                self._sent(source, endpoint, over), timeout=self._deadline.timeout_s, metadata=self._context.metadata()
            )
            ending = Ending(call)
            try:
                with endpoint.stream(call), self._patience.with_call(endpoint, call):
                    async for answer in call:
                        # A probe has passed with its first answer, not when a day's work is done.
                        ticket.answered()
                        self._count_answer()
                        with self._unanswered.answered():
                            yield answer
            except grpc.aio.AioRpcError as error:
                raise await ending.true(error) from None
            finally:
                over.set_result(None)

    async def _sent(
        self, source: _Source[Request], endpoint: Endpoint[Stub], over: asyncio.Future[None]
    ) -> AsyncIterator[Request]:
        for request in list(self._unanswered):
            if endpoint.is_leaving:
                return
            yield request
        while True:
            # gRPC goes on asking after a call has ended; the next request is for the next call then.
            either: set[asyncio.Future[Any]] = {source.coming(), over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            # An endpoint that leaves answers what it has, and gets nothing new.
            if over.done() or endpoint.is_leaving or endpoint.health is Health.NOT_SERVING:
                return
            request = source.take()
            if request is _END:
                return
            self._unanswered.add(request)
            yield request

    def _count_answer(self) -> None:
        if not self._unanswered:
            raise TorchlessError(ErrorKind.INTERNAL, f"the {self._capability} service answered more than it was asked")
        self._answered += 1
        self._failures = 0
        self._tried.clear()

    async def _goes_on_after(self, error: TorchlessError) -> bool:
        """Whether there is another try; waits until it is time for it."""
        if error.kind not in _PASSING or self._pool.is_closed:
            return False
        self._failures += 1
        self._leave()
        wait_s = pause_s(self._failures, self._settings.retry)
        if error.kind is not ErrorKind.UNREACHABLE and error.retry_after_s is not None:
            wait_s = max(wait_s, min(error.retry_after_s, self._settings.retry.max_s))
        silent_s = max(0.0, time.monotonic() - self._unanswered.silent_since)
        if wait_s > min(self._settings.retry.stream_idle_timeout_s - silent_s, self._deadline.remaining_s):
            return False
        self._pool.look_again()
        await asyncio.sleep(wait_s)
        return True

    def _leave(self) -> None:
        """Those not tried yet come first now; when there are none left, all but the last one."""
        if self._endpoint is None:
            return
        self._tried.append(self._endpoint)
        if set(self._pool.endpoints()) <= set(self._tried):
            self._tried = [self._endpoint]


class _Source(Generic[Request]):
    """Reads the caller's requests one at a time, and loses none when the call that asked for it ends."""

    def __init__(self, requests: AsyncIterable[Request]) -> None:
        self._iterator = aiter(requests)
        self._coming: asyncio.Future[Request] | None = None
        self._failure: BaseException | None = None
        self._ended = False

    def coming(self) -> asyncio.Future[Request]:
        """Done when there is something to take; the same for all who ask until somebody does."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._iterator, _END))
        return self._coming

    def take(self) -> Request:
        """The request that has come; `_END`, from then on, when there is none or reading it failed."""
        if self._ended:
            return _END  # type: ignore[no-any-return]
        try:
            request = self.coming().result()
        except (Exception, asyncio.CancelledError) as error:
            self._failure, request = error, _END
        self._ended = request is _END
        if not self._ended:
            self._coming = None
        return request

    def raise_failure(self) -> None:
        """Raises what the caller's requests raised."""
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Stops reading."""
        if self._coming is None:
            return
        self._coming.cancel()
        await asyncio.wait({self._coming})
        if not self._coming.cancelled():
            self._coming.exception()  # looked at, so that nobody warns of it
