"""Single flight: inputs that are being computed are not computed a second time.

A flight is a task of its own, not its leader's: whoever hangs up only stops waiting, and when nobody waits any more the
call ends.
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
from torchless.contracts.errors import TOO_LATE, ErrorKind, TorchlessError

_SHARED = frozenset(
    {
        ErrorKind.UNREACHABLE,
        ErrorKind.CIRCUIT_OPEN,
        ErrorKind.GPU_UNAVAILABLE,
        ErrorKind.OVERLOADED,
        ErrorKind.INTERNAL,
    }
)
"""Kinds that say nothing about who asked: whoever waits would have met them as well. INTERNAL may come of one of the
inputs, so it does only for those who wait for all of them."""


class LeaderFailedError(Exception):
    """A flight ended for reasons of whoever began it; others compute for themselves."""


@dataclass(frozen=True, slots=True)
class Landed:
    """What a flight brought."""

    answer: Embeddings
    """The service's answer."""
    entries: Sequence[Entry]
    """One entry an input of the flight."""


class Flight:
    """One call in the air.

    Args:
        flights: Where it is listed.
        digests: What it computes.
        call: Computes it.
    """

    __slots__ = ("_flights", "_task", "_waiting", "rows")

    def __init__(self, flights: Flights, digests: Sequence[bytes], call: Coroutine[Any, Any, Landed]) -> None:
        self._flights = flights
        self._waiting = 0
        self.rows = {digest: row for row, digest in enumerate(digests)}
        """Row of each digest in what lands."""
        self._task = asyncio.create_task(call)
        self._task.add_done_callback(self._ended)

    def join(self) -> None:
        """One more waits; each calls `leave` in the end."""
        self._waiting += 1

    def leave(self) -> None:
        """One no longer waits; the last to leave ends the call."""
        self._waiting -= 1
        if not self._waiting and not self._task.done():
            self.abandon()

    def abandon(self) -> None:
        """Ends the call. Nobody joins it any more."""
        self._flights.forget(self)
        self._task.cancel()

    async def led(self) -> Landed:
        """What lands, for whoever began the flight; raises what the call raised."""
        await asyncio.wait((self._task,))
        if self._task.cancelled():
            raise unreachable("embedding")
        return self._task.result()

    async def followed(self, digests: Sequence[bytes], deadline: Deadline) -> Landed:
        """What lands, for those who joined.

        Args:
            digests: What they wait for; of a flight, each once.
            deadline: Until when.

        Raises:
            TorchlessError: A fault of the service, as a new exception; or DEADLINE after `deadline`.
            LeaderFailedError: The flight ended for reasons of its leader.
        """
        done, _ = await asyncio.wait((self._task,), timeout=deadline.timeout_s)
        if not done:
            raise out_of_time("embedding")
        error = LeaderFailedError() if self._task.cancelled() else self._task.exception()
        if error is None:
            return self._task.result()
        if isinstance(error, TorchlessError) and self._is_theirs(error, digests):
            raise error.copy()
        if self._flights.closed and not isinstance(error, TorchlessError):
            raise unreachable("embedding")
        raise LeaderFailedError from None

    def _is_theirs(self, error: TorchlessError, digests: Sequence[bytes]) -> bool:
        """Whether those who wait for `digests` would have met `error` as well."""
        if error.kind is ErrorKind.INTERNAL:
            return len(digests) == len(self.rows)
        return error.kind in _SHARED and error.metadata.get("reason") != TOO_LATE

    def _ended(self, task: asyncio.Task[Landed]) -> None:
        self._flights.ended(self)
        if not task.cancelled():
            task.exception()  # seen, should nobody wait any more

    async def closed(self) -> None:
        """Ends the call and waits until it has ended."""
        self.abandon()
        await asyncio.wait((self._task,))


class Flights:
    """The calls in the air, by what they compute."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Flight] = {}
        self._all: set[Flight] = set()
        self.closed = False
        """Whether `close` was called."""

    def find(self, digest: bytes) -> Flight | None:
        """The flight that computes `digest`."""
        return self._by_digest.get(digest)

    def begin(self, digests: Sequence[bytes], call: Coroutine[Any, Any, Landed], *, listed: bool) -> Flight:
        """A new flight for `digests`; `listed`: others may join it, in place of those that compute them already.

        Raises:
            TorchlessError: UNREACHABLE, after `close`.
        """
        if self.closed:
            call.close()
            raise unreachable("embedding")
        flight = Flight(self, digests, call)
        self._all.add(flight)
        if listed:
            self._by_digest.update(dict.fromkeys(digests, flight))
        return flight

    def ended(self, flight: Flight) -> None:
        """`flight` is in the air no longer."""
        self._all.discard(flight)
        self.forget(flight)

    def forget(self, flight: Flight) -> None:
        """Nobody joins `flight` any more."""
        for digest in flight.rows:
            if self._by_digest.get(digest) is flight:
                del self._by_digest[digest]

    async def close(self) -> None:
        """Ends every call, and lets none begin."""
        self.closed = True
        for flight in [*self._all]:
            await flight.closed()
