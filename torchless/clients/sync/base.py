"""Base of the blocking clients."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Generic, Self, TypeVar

from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.endpoint_state import EndpointState
from torchless.clients.settings import ClientSettings
from torchless.clients.sync import background
from torchless.clients.sync.streams import AnswerStream
from torchless.clients.translate import unreachable
from torchless.contracts.errors import TorchlessError

C = TypeVar("C", bound=CapabilityClient)
T = TypeVar("T")


class SyncClient(Generic[C]):
    """Runs an asynchronous client in the background loop and waits for its calls.

    Several threads may use one client at once. It also works in a thread that runs an event loop, such as a notebook's;
    that loop waits during each call. Ctrl-C cancels the call at the service. gRPC does not survive a fork: in a process
    that was forked after the first client was created, calls raise INTERNAL.

    Args:
        make: Creates the asynchronous client.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._closed = False
        self._loop = loop = background.current()

        async def create() -> C:
            client = make()
            loop.clients.add(client)
            return client

        self._client = loop.run(create())
        self._finalizer = weakref.finalize(self, loop.forget, self._client)
        self._finalizer.atexit = False  # at exit the loop closes all clients

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Connects and starts the health checks; otherwise the first call does both."""
        self._call(lambda client: client.start())

    def reconfigure(self, settings: ClientSettings) -> None:
        """Applies new settings; calls in flight keep the old ones."""
        self._run(lambda client: client.reconfigure(settings))

    def close(self) -> None:
        """Closes the channels; calls in flight end with UNREACHABLE. Closing twice, or during exit, does nothing."""
        self._closed = True
        self._finalizer.detach()
        if self._loop.is_running:
            self._loop.run(self._loop.close(self._client))

    def states(self) -> list[EndpointState]:
        """The current state of each endpoint: health, breaker and calls in flight."""
        return self._call(lambda client: client.states())

    def is_down(self) -> bool:
        """Whether, as far as is known, no endpoint takes calls: each is unhealthy or has an open breaker."""
        return self._call(lambda client: client.is_down())

    def endpoint_changes(self) -> int:
        """How often the health of an endpoint changed, or an endpoint was removed.

        While the number stays the same, no endpoint was restarted: what the service reported about its models holds.
        """
        return self._call(lambda client: client.endpoint_changes())

    def may_serve(self) -> bool:
        """Whether, as far as is known, an endpoint is SERVING; also while nothing is known yet."""
        return self._call(lambda client: client.may_serve())

    def ready(self, context: CallContext = CallContext()) -> bool:
        """Checks now whether an endpoint is SERVING (grpc.health.v1).

        Raises:
            TorchlessError: UNREACHABLE, if no endpoint answers within the deadline.
        """
        return self._run(lambda client: client.ready(context))

    def obstacle(self, context: CallContext = CallContext()) -> TorchlessError | None:
        """Checks now why no endpoint is SERVING; None: one is.

        Returns:
            The error that the service gives as its reason, for instance LOADING or MODEL_UNAVAILABLE; UNREACHABLE, if
            it gives none.

        Raises:
            TorchlessError: UNREACHABLE, if no endpoint answers within the deadline.
        """
        return self._run(lambda client: client.obstacle(context))

    def _call(self, call: Callable[[C], T]) -> T:
        """The result of `call`, a plain function, run in the loop."""

        async def run(client: C) -> T:
            return call(client)

        return self._run(run)

    def _run(self, call: Callable[[C], Awaitable[T]]) -> T:
        client = self._bound()

        async def work() -> T:
            return await call(client)

        return self._loop.run(work())

    def _iterate(self, stream: Callable[[C, AnswerStream[T]], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        client = self._bound()
        answers: AnswerStream[T] = AnswerStream(self._loop)
        return answers.iterate(lambda: stream(client, answers))

    def _bound(self) -> C:
        if self._closed:
            raise unreachable(self._client.capability)
        return self._client
