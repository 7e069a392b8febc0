"""What the blocking clients of all capabilities share."""

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

C = TypeVar("C", bound=CapabilityClient)
T = TypeVar("T")


class SyncClient(Generic[C]):
    """Base of the blocking clients: an asynchronous client in the background loop, and calls that wait for it.

    May be used from several threads at once, and in a thread whose event loop runs, as a notebook's does; that loop
    stands still while a call waits. Ctrl-C cancels the call at the service. gRPC does not survive a fork: in a process
    that was forked after the first client was made, calls raise INTERNAL.

    Args:
        make: Makes the asynchronous client.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._closed = False
        self._loop = loop = background.current()

        async def made() -> C:
            client = make()
            loop.clients.add(client)
            return client

        self._client = loop.run(made())
        self._finalizer = weakref.finalize(self, loop.forget, self._client)
        self._finalizer.atexit = False  # when the process ends the loop closes what is left

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Connects, and follows the endpoints' health from now on; otherwise the first call begins that."""

        async def start(client: C) -> None:
            client.start()

        self._run(start)

    def reconfigure(self, settings: ClientSettings) -> None:
        """Other settings from now on; calls in flight end as they began."""
        self._run(lambda client: client.reconfigure(settings))

    def close(self) -> None:
        """Closes the channels; calls in flight end with UNREACHABLE. Again, or at the end of the process: nothing."""
        self._closed = True
        self._finalizer.detach()
        if self._loop.here:
            self._loop.run(self._loop.close(self._client))

    def states(self) -> list[EndpointState]:
        """What is known of each endpoint now: its health, its breaker, and its calls in flight."""

        async def states(client: C) -> list[EndpointState]:
            return client.states()

        return self._run(states)

    def is_down(self) -> bool:
        """Whether no endpoint takes calls, as far as is known: each one is unwell, or its breaker is open."""

        async def is_down(client: C) -> bool:
            return client.is_down()

        return self._run(is_down)

    def ready(self, context: CallContext = CallContext()) -> bool:
        """Whether an endpoint says that it is SERVING (grpc.health.v1), asked now.

        Raises:
            TorchlessError: UNREACHABLE, when none of them says anything within the deadline.
        """
        return self._run(lambda client: client.ready(context))

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
