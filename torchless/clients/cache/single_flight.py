"""Single flight: inputs that are being computed are not computed a second time.

A call in flight is a separate task, not part of the request that started it: when that request is cancelled, others
still get the result. When no request waits for it any more, the call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from torchless.clients.cache.entry import Entry
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import Embeddings
from torchless.clients.translate import out_of_time, unreachable
from torchless.contracts.errors import TOO_LATE, TorchlessError


class NotSharedError(Exception):
    """A call failed for reasons of the request that started it; the others compute for themselves."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call in flight."""

    answer: Embeddings
    """The service's answer."""
    entries: Sequence[Entry]
    """One entry per input of the call."""


class InFlightCall:
    """One call to the service.

    Args:
        calls: Where it is registered.
        digests: Digests of the inputs that it computes.
        work: Computes them.
        request_id: Id of the request that started it.
    """

    __slots__ = ("_calls", "_task", "_waiting", "request_id", "rows")

    def __init__(
        self, calls: SingleFlight, digests: Sequence[bytes], work: Coroutine[Any, Any, Result], request_id: str
    ) -> None:
        self._calls = calls
        self.request_id = request_id
        """Id of the request that started it; empty: none."""
        self._waiting = 0
        self.rows = {digest: row for row, digest in enumerate(digests)}
        """Row of each digest in the result."""
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._done)

    def join(self) -> None:
        """Adds a waiting request. It calls `leave` in the end."""
        self._waiting += 1

    def leave(self) -> None:
        """Removes a waiting request; the last one to leave cancels the call."""
        self._waiting -= 1
        if not self._waiting and not self._task.done():
            self.cancel()

    def cancel(self) -> None:
        """Cancels the call. No request joins it from now on."""
        self._calls.unlist(self)
        self._task.cancel()

    async def own_result(self) -> Result:
        """The result, for the request that started the call; raises what the call raised."""
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            raise unreachable("embedding")
        return self._task.result()

    async def shared_result(self, digests: Sequence[bytes], deadline: Deadline) -> Result:
        """The result, for a request that joined the call.

        Args:
            digests: The inputs that the request waits for, each once.
            deadline: Until when it waits.

        Raises:
            TorchlessError: An error that every request shares, as a new exception; or DEADLINE after `deadline`.
            NotSharedError: The call failed for reasons of the request that started it.
        """
        done, _ = await asyncio.wait((self._task,), timeout=deadline.timeout_s)
        if not done:
            raise out_of_time("embedding")
        error = NotSharedError() if self._task.cancelled() else self._task.exception()
        if error is None:
            return self._task.result()
        if isinstance(error, TorchlessError) and self._is_shared(error, digests):
            raise error.copy()
        if self._calls.closed and not isinstance(error, TorchlessError):
            raise unreachable("embedding")
        raise NotSharedError from None

    def _is_shared(self, error: TorchlessError, digests: Sequence[bytes]) -> bool:
        """Whether a call for `digests` alone would have failed with `error` as well."""
        policy = error.kind.policy
        if policy.from_one_input and len(digests) < len(self.rows):
            return False
        return policy.shared and error.metadata.get("reason") != TOO_LATE

    def _done(self, task: asyncio.Task[Result]) -> None:
        self._calls.discard(self)
        if not task.cancelled():
            task.exception()  # retrieved, in case no request waits for it

    async def close(self) -> None:
        """Cancels the call and waits until it has ended."""
        self.cancel()
        await asyncio.wait((self._task,))


class SingleFlight:
    """The calls in flight, by what they compute."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, InFlightCall] = {}
        self._calls: set[InFlightCall] = set()
        self.closed = False
        """Whether `close` was called."""

    def find(self, digest: bytes) -> InFlightCall | None:
        """The call that computes `digest`."""
        return self._by_digest.get(digest)

    def begin(
        self, digests: Sequence[bytes], work: Coroutine[Any, Any, Result], *, joinable: bool, request_id: str = ""
    ) -> InFlightCall:
        """Starts a call for `digests`; when `joinable`, other requests find it from now on.

        Raises:
            TorchlessError: UNREACHABLE, after `close`.
        """
        if self.closed:
            work.close()
            raise unreachable("embedding")
        call = InFlightCall(self, digests, work, request_id)
        self._calls.add(call)
        if joinable:
            self._by_digest.update(dict.fromkeys(digests, call))
        return call

    def discard(self, call: InFlightCall) -> None:
        """Removes a call that has ended."""
        self._calls.discard(call)
        self.unlist(call)

    def unlist(self, call: InFlightCall) -> None:
        """Lets no more requests join `call`."""
        for digest in call.rows:
            if self._by_digest.get(digest) is call:
                del self._by_digest[digest]

    async def close(self) -> None:
        """Cancels every call, and starts no more."""
        self.closed = True
        for call in [*self._calls]:
            await call.close()
