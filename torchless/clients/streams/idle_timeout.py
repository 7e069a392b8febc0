"""What a stream has asked and was not answered, and when it has waited for that too long."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc

from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.endpoint import Endpoint
from torchless.clients.endpoints.health import is_this_task_cancelled
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

Request = TypeVar("Request")


class Unanswered(Generic[Request]):
    """The requests that have no answer yet, in order, and since when nothing was answered."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._since = 0.0
        self._is_waited_for = True

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    @property
    def silent_since(self) -> float:
        """Monotonic time from which somebody has waited for the next answer; infinity: nobody does."""
        return self._since if self._requests and self._is_waited_for else math.inf

    def add(self, request: Request) -> None:
        """`request` is the last to be answered."""
        if not self._requests:
            self._since = time.monotonic()
        self._requests.append(request)

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Takes the first away; while the caller is at work with its answer nobody waits for the next."""
        self._requests.popleft()
        self._is_waited_for = False
        try:
            yield
        finally:
            self._is_waited_for, self._since = True, time.monotonic()


class Patience:
    """Ends the calls of a stream that are not answered.

    Args:
        capability: Name of the capability, for messages.
        pool: Its endpoints.
        settings: How long to wait, and how often to ask whether the endpoint is there at all.
        unanswered: What waits for answers.
    """

    def __init__(
        self, capability: str, pool: EndpointPool[Any], settings: ClientSettings, unanswered: Unanswered[Any]
    ) -> None:
        self._capability = capability
        self._pool = pool
        self._health = settings.endpoint_health
        self._unanswered = unanswered
        # Without patience nothing is tried again; the first attempt has its time all the same.
        self._longest_s = settings.retry.stream_idle_timeout_s or math.inf

    @contextmanager
    def with_call(self, endpoint: Endpoint[Any], call: grpc.aio.Call) -> Iterator[None]:
        """Around reading the answers of `call`, which is cancelled when they fail to come.

        Raises:
            TorchlessError: UNREACHABLE when `endpoint` does not say that it is there either and another one takes
                calls, DEADLINE when the patience is over.
        """
        over = asyncio.get_running_loop().create_task(self._over(endpoint))
        over.add_done_callback(lambda _: call.cancel())
        try:
            yield
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            if over.done() and not is_this_task_cancelled():
                raise self._error(over.result()) from None
            raise
        finally:
            over.cancel()

    async def _over(self, endpoint: Endpoint[Any]) -> ErrorKind:
        """Why nothing is waited for any more, once it is so."""
        began = asked = time.monotonic()
        while True:
            await asyncio.sleep(min(self._health.interval_s, self._health.timeout_s, self._longest_s))
            now, since = time.monotonic(), self._unanswered.silent_since
            if now - since >= self._longest_s:
                return ErrorKind.DEADLINE
            if now - max(began, since) < self._health.interval_s:
                continue
            # Where nobody else is there, the only one may still be at work on what it has.
            if self._longest_s < math.inf and endpoint.health is Health.UNREACHABLE and self._pool.takers():
                return ErrorKind.UNREACHABLE
            if now - asked >= self._health.interval_s and not endpoint.is_leaving:
                endpoint.watch.suspect()
                asked = now

    def _error(self, kind: ErrorKind) -> TorchlessError:
        if kind is ErrorKind.UNREACHABLE:
            return unreachable(self._capability)
        return TorchlessError(
            kind, f"the {self._capability} service answered nothing of the stream for {self._longest_s:g} s"
        )
