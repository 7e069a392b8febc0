"""One event loop in a thread of its own, for all blocking clients of a process."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from torchless.clients.base import CapabilityClient
from torchless.contracts.errors import ErrorKind, TorchlessError

T = TypeVar("T")
_EXIT_PATIENCE_S = 2.0


class BackgroundLoop:
    """An event loop in a daemon thread; `current` has the one of this process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clients: set[CapabilityClient] = set()
        """Clients to be closed when the process ends. Touched in the loop alone."""
        self._thread = threading.Thread(target=self._serve, name="torchless-clients", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether its thread runs, and in this process: not in the one that this was forked from."""
        return self._thread.is_alive()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts `work`, whose result the future has; cancelling that cancels the work.

        Raises:
            TorchlessError: INTERNAL in a process that was forked, UNREACHABLE in one that is ending.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking client was called in the thread that does its work")
        if not self.here:
            work.close()
            raise _not_here()
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Who stops waiting for it, by Ctrl-C for instance, cancels it.

        Raises:
            TorchlessError: As `begin`; UNREACHABLE also when the process ends meanwhile.
        """
        future = self.begin(work)
        try:
            return future.result()
        except CancelledError:
            raise ending() from None
        finally:
            future.cancel()  # nothing, once it is done

    def post(self, action: Callable[[], object]) -> None:
        """Has `action` run in the loop, soon; from any thread, also as objects are collected or the process ends."""
        if self.here:
            self.loop.call_soon_threadsafe(action)

    def forget(self, client: CapabilityClient) -> None:
        """Closes `client` soon, without waiting for it."""
        self.post(lambda: self.loop.create_task(self.close(client)))

    async def close(self, client: CapabilityClient) -> None:
        """Closes `client`, unless that was done."""
        if client in self.clients:
            self.clients.discard(client)
            await client.close()

    def stop(self) -> None:
        """Cancels what is under way, closes all clients, and ends the thread; waits for it two seconds at most."""
        if not self.here:
            return
        self.post(lambda: self.loop.create_task(self._stop()))
        self._thread.join(_EXIT_PATIENCE_S)

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _stop(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.gather(*(self.close(client) for client in tuple(self.clients)), return_exceptions=True)
        self.loop.stop()


_lock = threading.Lock()
_current: BackgroundLoop | None = None
_of_the_parent: BackgroundLoop | None = None


def current() -> BackgroundLoop:
    """The loop of this process, started with the first call.

    Raises:
        TorchlessError: INTERNAL: the process was forked from one that has a loop.
    """
    global _current  # noqa: PLW0603  # one a process is what it is for
    with _lock:
        if _of_the_parent is not None:
            raise _not_here()
        if _current is None or not _current.here:
            _current = BackgroundLoop()
        return _current


def ending() -> TorchlessError:
    """What calls come to that the end of the process cuts short."""
    return TorchlessError(ErrorKind.UNREACHABLE, "the process is ending: no more calls are made")


def _not_here() -> TorchlessError:
    if _of_the_parent is None:
        return ending()
    return TorchlessError(
        ErrorKind.INTERNAL,
        "this process was forked from one that had made a client, and gRPC cannot be used in it; start processes with "
        'multiprocessing.get_context("spawn") or "forkserver", or make the first client after the fork',
    )


def _after_fork() -> None:
    # The loop's thread is gone, and gRPC with it: a call would abort the process, or wait for ever. What the parent had
    # is kept, since to collect a channel is to use gRPC.
    global _current, _lock, _of_the_parent  # noqa: PLW0603
    _lock = threading.Lock()  # a thread that is gone may have held it
    _of_the_parent, _current = _current or _of_the_parent, None


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
