"""A stream of requests and answers that survives the loss of its endpoint.

Each request has one answer, in order. Requests that a lost endpoint had not answered are sent again to the next one.
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
from torchless.clients.streams.call_status import CallStatus
from torchless.clients.streams.idle_timeout import IdleTimeout, PendingRequests
from torchless.clients.translate import out_of_time, unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

Request = TypeVar("Request")
Response = TypeVar("Response")
_END: Any = object()


class ResumableStream(Generic[Stub, Request, Response]):
    """One stream over as many calls as necessary.

    Args:
        capability: Name of the capability, for messages.
        pool: Its endpoints.
        settings: Retries and timeouts.
        method: Takes the method to call from a stub.
        context: Tenant, request id, trace, and the deadline of the whole stream.
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
        self._pending: PendingRequests[Request] = PendingRequests()
        self._idle_timeout = IdleTimeout(capability, pool, settings, self._pending)
        self._answered = 0
        self._failures = 0
        self._endpoint: Endpoint[Stub] | None = None
        self._tried: list[Endpoint[Stub]] = []

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Response, None]:
        """The answers to `requests`, in their order.

        Raises:
            TorchlessError: As the service. After `retry.stream_idle_timeout_s` without an answer, the error of the
                last endpoint, or DEADLINE if it was silent.
            Exception: What `requests` raises, after the answers to the requests before.
        """
        source = _Source(requests)
        try:
            while await self._has_pending(source):
                before = self._answered
                try:
                    async with aclosing(self._over_one_endpoint(source)) as answers:
                        async for answer in answers:
                            yield answer
                    if self._answered == before:
                        raise unreachable(self._capability)
                except TorchlessError as error:
                    if not await self._resumes_after(error):
                        raise
            source.raise_failure()
        finally:
            await source.close()

    async def _has_pending(self, source: _Source[Request]) -> bool:
        """Waits for a request if none is pending, so that no endpoint is kept waiting for it; False at the end."""
        if not self._pending:
            coming = source.coming()
            done, _ = await asyncio.wait({coming}, timeout=self._deadline.timeout_s)
            if not done:
                raise out_of_time(self._capability)
            request = source.take()
            if request is _END:
                return False
            self._pending.add(request)
        return True

    async def _over_one_endpoint(self, source: _Source[Request]) -> AsyncGenerator[Response, None]:
        self._endpoint = None
        deadline = self._context.deadline or Deadline.after(self._settings.deadline_s)
        endpoint, ticket = await self._pool.pick(deadline, self._tried)
        self._endpoint = endpoint
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with endpoint.call(ticket, timed=False):
            requests = self._requests(source, endpoint, over)
            call = self._method(endpoint.stub)(
                requests, timeout=self._deadline.timeout_s, metadata=self._context.metadata()
            )
            status = CallStatus(call)
            try:
                with endpoint.stream(call), self._idle_timeout.watching(endpoint, call):
                    async for answer in call:
                        # A half-open probe succeeds with its first answer, not at the end of a long stream.
                        ticket.answered()
                        self._count_answer()
                        with self._pending.answered():
                            yield answer
            except grpc.aio.AioRpcError as error:
                raise await status.resolve(error) from None
            finally:
                over.set_result(None)

    async def _requests(
        self, source: _Source[Request], endpoint: Endpoint[Stub], over: asyncio.Future[None]
    ) -> AsyncIterator[Request]:
        """The requests for one call: first the pending ones, then new ones."""
        for request in list(self._pending):
            if endpoint.is_leaving:
                return
            yield request
        while True:
            # gRPC asks for more even after a call has ended; the next request is for the next call then.
            either: set[asyncio.Future[Any]] = {source.coming(), over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            # An endpoint that is leaving answers what it has, and gets nothing new.
            if over.done() or endpoint.is_leaving or endpoint.health is Health.NOT_SERVING:
                return
            request = source.take()
            if request is _END:
                return
            self._pending.add(request)
            yield request

    def _count_answer(self) -> None:
        if not self._pending:
            raise TorchlessError(ErrorKind.INTERNAL, f"the {self._capability} service sent more answers than requests")
        self._answered += 1
        self._failures = 0
        self._tried.clear()

    async def _resumes_after(self, error: TorchlessError) -> bool:
        """Whether the stream goes on after `error`; waits until it is time for the next attempt."""
        if not error.kind.policy.resumes_stream or self._pool.is_closed:
            return False
        self._failures += 1
        self._avoid_endpoint()
        wait_s = pause_s(self._failures, self._settings.retry)
        if error.kind is not ErrorKind.UNREACHABLE and error.retry_after_s is not None:
            wait_s = max(wait_s, min(error.retry_after_s, self._settings.retry.max_s))
        idle_s = max(0.0, time.monotonic() - self._pending.idle_since)
        if wait_s > min(self._settings.retry.stream_idle_timeout_s - idle_s, self._deadline.remaining_s):
            return False
        self._pool.refresh()
        await asyncio.sleep(wait_s)
        return True

    def _avoid_endpoint(self) -> None:
        """Prefers endpoints that were not tried; once all were, any but the last one."""
        if self._endpoint is None:
            return
        self._tried.append(self._endpoint)
        if set(self._pool.endpoints()) <= set(self._tried):
            self._tried = [self._endpoint]


class _Source(Generic[Request]):
    """Reads the caller's requests one at a time, and loses none when the call that waits for one ends."""

    def __init__(self, requests: AsyncIterable[Request]) -> None:
        self._iterator = aiter(requests)
        self._coming: asyncio.Future[Request] | None = None
        self._failure: BaseException | None = None
        self._ended = False

    def coming(self) -> asyncio.Future[Request]:
        """Done once there is something to take; the same future until it is taken."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._iterator, _END))
        return self._coming

    def take(self) -> Request:
        """The request that has arrived; `_END` from then on, when there is none or reading it failed."""
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
            self._coming.exception()  # retrieved, so that asyncio does not log it
