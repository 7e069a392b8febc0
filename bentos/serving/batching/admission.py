"""Says no before a request waits for longer than it is worth."""

from __future__ import annotations

import asyncio
from collections import deque

from bentos.serving.batching.settings import BatchingSettings
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large

_SMOOTHING = 0.2
_SHORTEST_HINT_S = 0.1
_LONGEST_HINT_S = 60.0
_ROOM_FOR_UNKNOWN = 1 / 16
"""Part of the room that a request whose length is not known yet needs to find free."""


class DrainRate:
    """Tokens that the device works off in a second, as a moving average over its batches.

    The first batch does not count: it pays for what is made once, and a service that took it for its speed would refuse
    what it could well serve for as long as the average takes to forget it.
    """

    def __init__(self) -> None:
        self.tokens_per_second: float | None = None
        self._is_first = True

    def observe(self, tokens: int, seconds: float) -> None:
        """Takes account of one batch of `tokens` tokens that took `seconds`."""
        if self._is_first or seconds <= 0:
            self._is_first = False
            return
        rate = tokens / seconds
        before = rate if self.tokens_per_second is None else self.tokens_per_second
        self.tokens_per_second = before + _SMOOTHING * (rate - before)

    def seconds_for(self, tokens: int) -> float:
        """Time to work off `tokens`, in seconds; 0 before anything was measured."""
        return 0.0 if self.tokens_per_second is None else tokens / self.tokens_per_second


class Admission:
    """Counts what waits, and refuses or holds back what would be too much.

    Belongs to one event loop. A request is admitted with its tokens and released as its items are taken.

    Args:
        settings: How much may wait.
        inputs: Name of the request's field that holds the items, for messages.
    """

    def __init__(self, settings: BatchingSettings, inputs: str = "texts") -> None:
        self._inputs = inputs
        self._max_tokens = settings.max_waiting_tokens
        self._max_requests = settings.max_waiting_requests
        self._held_back: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.drain_rate = DrainRate()
        self.tokens = 0
        """Tokens admitted and not yet taken by the device."""
        self.requests = 0
        """Requests admitted and not yet answered."""

    def refuse_if_full(self) -> None:
        """Refuses before any work is done for a request whose length is not known yet.

        When a little room is left it is refused as well: under overload there always is, and a request that is
        tokenized to find that it needs more has cost what those who were let in could have used.

        Raises:
            TorchlessError: OVERLOADED, with the time after which there should be room.
        """
        if not self._has_room(int(self._max_tokens * _ROOM_FOR_UNKNOWN)):
            raise self.overloaded(0)

    def admit(self, tokens: int) -> None:
        """Takes a place for a request of `tokens` tokens.

        Raises:
            TorchlessError: OVERLOADED when there is no room now; INPUT_TOO_LARGE when there never could be.
        """
        self._refuse_if_never(tokens)
        if not self._has_room(tokens):
            raise self.overloaded(tokens)
        self._enter(tokens)

    async def wait_for_room(self, tokens: int) -> None:
        """Takes a place, waiting for it behind whoever waits already, while half of the room is taken.

        The other half is for those who do not wait, so that a bulk caller never locks them out.

        Raises:
            TorchlessError: INPUT_TOO_LARGE when there never could be room; what `fail_waiting` was given.
        """
        self._refuse_if_never(tokens, self._max_tokens // 2)
        if not self._held_back and self._has_room(tokens, self._max_tokens // 2):
            self._enter(tokens)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held_back.append((tokens, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # Let in at the very moment it was cancelled.
                self.release_tokens(tokens)
                self.release_request()
            self._let_in()  # those behind it no longer have it before them
            raise

    def fail_waiting(self, error: TorchlessError) -> None:
        """Ends the wait of everybody who waits for room."""
        while self._held_back:
            _, turn = self._held_back.popleft()
            if not turn.done():
                turn.set_exception(error.copy())

    def release_tokens(self, tokens: int) -> None:
        """Gives back the room of items that were taken or dropped."""
        self.tokens -= tokens
        self._let_in()

    def release_request(self) -> None:
        """Gives back the place of a request that was answered, or given up."""
        self.requests -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._held_back:
            tokens, turn = self._held_back[0]
            if turn.done():
                self._held_back.popleft()
            elif self._has_room(tokens, self._max_tokens // 2):
                self._held_back.popleft()
                self._enter(tokens)
                turn.set_result(None)
            else:
                return

    def _enter(self, tokens: int) -> None:
        self.tokens += tokens
        self.requests += 1

    def _has_room(self, tokens: int, room: int | None = None) -> bool:
        return self.requests < self._max_requests and self.tokens + tokens <= (room or self._max_tokens)

    def _refuse_if_never(self, tokens: int, room: int | None = None) -> None:
        if tokens > (room or self._max_tokens):
            raise input_too_large(
                self._inputs,
                f"hold {tokens} tokens in all and at most {room or self._max_tokens} are taken in one call; send fewer",
            )

    def overloaded(self, tokens: int, **metadata: str) -> TorchlessError:
        """The refusal of a request of `tokens` tokens, with the time after which there should be room."""
        excess = max(self.tokens + tokens - self._max_tokens, self.tokens // 2)
        seconds = self.drain_rate.seconds_for(excess)
        return TorchlessError(
            ErrorKind.OVERLOADED,
            "the service has more waiting than it can serve in time; try again after the time given",
            retry_after_s=min(max(seconds, _SHORTEST_HINT_S), _LONGEST_HINT_S),
            metadata=metadata,
        )
