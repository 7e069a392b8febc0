"""One event loop in a background thread, shared by all blocking clients of a process."""

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
_EXIT_TIMEOUT_S = 2.0


class BackgroundLoop:
    """An event loop in a daemon thread; `current` returns the one of this process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clients: set[CapabilityClient] = set()
        """Clients to close when the process ends. Used only in the loop."""
        self.at_exit: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        """What else to do then. Used only in the loop."""
        self._thread = threading.Thread(target=self._serve, name="torchless-clients", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether its thread runs in this process; after a fork the thread exists only in the parent."""
        return self._thread.is_alive()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts `work`. The future gets its result; cancelling the future cancels the work.

        Raises:
            TorchlessError: INTERNAL in a forked process, UNREACHABLE in a process that is exiting.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking client must not be called from the event loop that runs its calls")
        if not self.is_running:
            work.close()
            raise _not_running()
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. An interrupt of the wait, Ctrl-C for instance, cancels the work.

        Raises:
            TorchlessError: As `begin`; also UNREACHABLE when the process exits during the call.
        """
        future = self.begin(work)
        try:
            return future.result()
        except CancelledError:
            raise exiting() from None
        finally:
            future.cancel()  # no effect once it is done

    def post(self, action: Callable[[], object]) -> None:
        """Runs `action` in the loop soon. Safe from any thread, from finalizers and during exit."""
        if self.is_running:
            self.loop.call_soon_threadsafe(action)

    def forget(self, client: CapabilityClient) -> None:
        """Closes `client` soon, without waiting."""
        self.post(lambda: self.loop.create_task(self.close(client)))

    async def close(self, client: CapabilityClient) -> None:
        """Closes `client`, unless it is closed already."""
        if client in self.clients:
            self.clients.discard(client)
            await client.close()

    def stop(self) -> None:
        """Cancels all calls, closes all clients and ends the thread; waits at most two seconds."""
        if not self.is_running:
            return
        self.post(lambda: self.loop.create_task(self._stop()))
        self._thread.join(_EXIT_TIMEOUT_S)

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _stop(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self.close(client) for client in tuple(self.clients)), return_exceptions=True)
        await asyncio.gather(*(action() for action in self.at_exit), return_exceptions=True)
        self.loop.stop()


_lock = threading.Lock()
_current: BackgroundLoop | None = None
_parent_loop: BackgroundLoop | None = None


def current() -> BackgroundLoop:
    """The loop of this process; the first call starts it.

    Raises:
        TorchlessError: INTERNAL, if the process was forked from one that has a loop.
    """
    global _current  # noqa: PLW0603  # there is one per process
    with _lock:
        if _parent_loop is not None:
            raise _not_running()
        if _current is None or not _current.is_running:
            _current = BackgroundLoop()
        return _current


def exiting() -> TorchlessError:
    """The error of calls that the exit of the process cuts short."""
    return TorchlessError(ErrorKind.UNREACHABLE, "the process is exiting, so no more calls are made")


def _not_running() -> TorchlessError:
    if _parent_loop is None:
        return exiting()
    return TorchlessError(
        ErrorKind.INTERNAL,
        "this process was forked after its parent had created a client, and gRPC does not work in it; start processes "
        'with multiprocessing.get_context("spawn") or "forkserver", or create the first client after the fork',
    )


def _after_fork() -> None:
    # The fork has no loop thread and no working gRPC: a call would abort the process or hang. The parent's loop stays
    # referenced, because collecting its channels would call gRPC.
    global _current, _lock, _parent_loop  # noqa: PLW0603
    _lock = threading.Lock()  # another thread of the parent may have held it
    _parent_loop, _current = _current or _parent_loop, None


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
