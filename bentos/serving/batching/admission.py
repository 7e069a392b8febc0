"""Says no before a request waits for longer than it is worth."""

from __future__ import annotations

import asyncio
from collections import deque

from bentos.serving.batching.settings import BatchingSettings
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large

_SMOOTHING = 0.2
_SHORTEST_HINT_S = 0.1
_LONGEST_HINT_S = 60.0


class DrainRate:
    """Tokens that the device works off in a second, as a moving average over its passes."""

    def __init__(self) -> None:
        self.tokens_per_second: float | None = None

    def observe(self, tokens: int, seconds: float) -> None:
        """Takes account of one pass of `tokens` tokens that took `seconds`."""
        if seconds <= 0:
            return
        rate = tokens / seconds
        before = rate if self.tokens_per_second is None else self.tokens_per_second
        self.tokens_per_second = before + _SMOOTHING * (rate - before)

    def seconds_for(self, tokens: int) -> float:
        """Time until `tokens` are worked off, between 0.1 and 60 s; 1 s before anything was measured."""
        if self.tokens_per_second is None:
            return 1.0
        return min(max(tokens / self.tokens_per_second, _SHORTEST_HINT_S), _LONGEST_HINT_S)


class Admission:
    """Counts what waits, and refuses or holds back what would be too much.

    Belongs to one event loop. A request is admitted with its tokens and released as its items are taken.
    """

    def __init__(self, settings: BatchingSettings) -> None:
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

        Raises:
            TorchlessError: OVERLOADED, with the time after which there should be room.
        """
        if not self._has_room(0):
            raise self._overloaded(0)

    def admit(self, tokens: int) -> None:
        """Takes a place for a request of `tokens` tokens.

        Raises:
            TorchlessError: OVERLOADED when there is no room now; INPUT_TOO_LARGE when there never could be.
        """
        self._refuse_if_never(tokens)
        if self._held_back or not self._has_room(tokens):
            raise self._overloaded(tokens)
        self._enter(tokens)

    async def wait_for_room(self, tokens: int) -> None:
        """Takes a place, waiting for it behind whoever waits already.

        Raises:
            TorchlessError: INPUT_TOO_LARGE when there never could be room.
        """
        self._refuse_if_never(tokens)
        if not self._held_back and self._has_room(tokens):
            self._enter(tokens)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held_back.append((tokens, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in at the very moment it was cancelled
                self.release_tokens(tokens)
                self.release_request()
            raise

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
            elif self._has_room(tokens):
                self._held_back.popleft()
                self._enter(tokens)
                turn.set_result(None)
            else:
                return

    def _enter(self, tokens: int) -> None:
        self.tokens += tokens
        self.requests += 1

    def _has_room(self, tokens: int) -> bool:
        return self.requests < self._max_requests and self.tokens + tokens <= self._max_tokens

    def _refuse_if_never(self, tokens: int) -> None:
        if tokens > self._max_tokens:
            raise input_too_large(
                "texts",
                f"hold {tokens} tokens in all and the service takes at most {self._max_tokens} in one call; "
                "send fewer texts a call, or use StreamEmbeddings",
            )

    def _overloaded(self, tokens: int) -> TorchlessError:
        excess = max(self.tokens + tokens - self._max_tokens, self.tokens // 2)
        return TorchlessError(
            ErrorKind.OVERLOADED,
            "the service has more waiting than it can serve in time; try again after the time given",
            retry_after_s=self.drain_rate.seconds_for(excess),
        )
