"""The unanswered requests of a stream, and the timeout for their answers."""

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


class PendingRequests(Generic[Request]):
    """The requests without an answer, in order, and how long the caller has waited for the next answer."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self._since = 0.0
        self._is_caller_waiting = True

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    @property
    def idle_since(self) -> float:
        """Monotonic time since which the caller waits for the next answer; infinity: it does not wait."""
        return self._since if self._requests and self._is_caller_waiting else math.inf

    def add(self, request: Request) -> None:
        """Adds `request` at the end."""
        if not self._requests:
            self._since = time.monotonic()
        self._requests.append(request)

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Removes the first request; inside the block the caller works with its answer and does not wait."""
        self._requests.popleft()
        self._is_caller_waiting = False
        try:
            yield
        finally:
            self._is_caller_waiting, self._since = True, time.monotonic()


class IdleTimeout:
    """Ends the calls of a stream that are not answered.

    Args:
        capability: Name of the capability, for messages.
        pool: Its endpoints.
        settings: The timeout, and how often to check whether the endpoint answers at all.
        pending: The unanswered requests.
    """

    def __init__(
        self, capability: str, pool: EndpointPool[Any], settings: ClientSettings, pending: PendingRequests[Any]
    ) -> None:
        self._capability = capability
        self._pool = pool
        self._health = settings.endpoint_health
        self._pending = pending
        # 0 means that nothing is retried; the first attempt has no timeout then.
        self._timeout_s = settings.retry.stream_idle_timeout_s or math.inf

    @contextmanager
    def watching(self, endpoint: Endpoint[Any], call: grpc.aio.Call) -> Iterator[None]:
        """Around reading the answers of `call`, which is cancelled when they do not arrive.

        Raises:
            TorchlessError: UNREACHABLE when `endpoint` does not answer health checks either and another endpoint is
                available, DEADLINE after the timeout.
        """
        idle = asyncio.get_running_loop().create_task(self._wait(endpoint))
        idle.add_done_callback(lambda _: call.cancel())
        try:
            yield
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            if idle.done() and not is_this_task_cancelled():
                raise self._error(idle.result()) from None
            raise
        finally:
            idle.cancel()

    async def _wait(self, endpoint: Endpoint[Any]) -> ErrorKind:
        """Returns why the call is given up, once it is."""
        began = checked = time.monotonic()
        while True:
            await asyncio.sleep(min(self._health.interval_s, self._health.timeout_s, self._timeout_s))
            now, since = time.monotonic(), self._pending.idle_since
            if now - since >= self._timeout_s:
                return ErrorKind.DEADLINE
            if now - max(began, since) < self._health.interval_s:
                continue
            if self._has_better(endpoint):
                return ErrorKind.UNREACHABLE
            if now - checked >= self._health.interval_s and not endpoint.is_leaving:
                endpoint.watch.suspect()
                checked = now

    def _has_better(self, endpoint: Endpoint[Any]) -> bool:
        """Whether another endpoint can take over. A single endpoint may still be at work on what it has."""
        is_lost = self._timeout_s < math.inf and endpoint.health is Health.UNREACHABLE
        return is_lost and self._pool.available_endpoints() > 0

    def _error(self, kind: ErrorKind) -> TorchlessError:
        if kind is ErrorKind.UNREACHABLE:
            return unreachable(self._capability)
        return TorchlessError(kind, f"the {self._capability} service sent no answer for {self._timeout_s:g} s")
