"""Admission control: refuses a request at once when too much is already waiting."""

from __future__ import annotations

import asyncio
from collections import deque

from bentos.serving.batching.settings import BatchingSettings
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large

_SMOOTHING = 0.2
_SHORTEST_HINT_S = 0.1
_LONGEST_HINT_S = 60.0
_CAPACITY_FOR_UNKNOWN = 1 / 16
"""Share of the capacity that must be free for a request whose length is not known yet."""


class DrainRate:
    """Tokens that the device computes per second, as a moving average over its batches.

    The first batch does not count: it includes one-time costs, and would make the service look slow, and refuse
    requests, until the average forgot it.
    """

    def __init__(self) -> None:
        self.tokens_per_second: float | None = None
        self._is_first = True

    def observe(self, tokens: int, seconds: float) -> None:
        """Records one batch of `tokens` tokens that took `seconds`."""
        if self._is_first or seconds <= 0:
            self._is_first = False
            return
        rate = tokens / seconds
        before = rate if self.tokens_per_second is None else self.tokens_per_second
        self.tokens_per_second = before + _SMOOTHING * (rate - before)

    def seconds_for(self, tokens: int) -> float:
        """Time to compute `tokens`, in seconds; 0 before the first measurement."""
        return 0.0 if self.tokens_per_second is None else tokens / self.tokens_per_second


class Admission:
    """Counts waiting tokens and requests, and refuses or delays requests above the limit.

    Belongs to one event loop. A request is admitted with its tokens, which are released as the device takes its items.

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
        """Refuses a request whose length is not known yet, before any work is done for it.

        It is also refused when little capacity is left. Under overload a little is always free, and tokenizing a
        request only to find that it does not fit wastes time that admitted requests need.

        Raises:
            TorchlessError: OVERLOADED, with the time after which there should be capacity.
        """
        if not self._has_room(int(self._max_tokens * _CAPACITY_FOR_UNKNOWN)):
            raise self.overloaded(0)

    def admit(self, tokens: int) -> None:
        """Admits a request of `tokens` tokens.

        Raises:
            TorchlessError: OVERLOADED when it does not fit now; INPUT_TOO_LARGE when it never could.
        """
        self._refuse_if_never(tokens)
        if not self._has_room(tokens):
            raise self.overloaded(tokens)
        self._enter(tokens)

    async def wait_for_room(self, tokens: int) -> None:
        """Admits a request of `tokens` tokens once it fits into half of the capacity; first come, first served.

        The other half is kept for requests that do not wait, so that a bulk caller never locks them out.

        Raises:
            TorchlessError: INPUT_TOO_LARGE when it could never fit; the error given to `fail_waiting`.
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
                # Admitted at the very moment it was cancelled.
                self.release_tokens(tokens)
                self.release_request()
            self._admit_waiting()  # the requests behind it move up
            raise

    def fail_waiting(self, error: TorchlessError) -> None:
        """Ends every `wait_for_room` with `error`."""
        while self._held_back:
            _, turn = self._held_back.popleft()
            if not turn.done():
                turn.set_exception(error.copy())

    def release_tokens(self, tokens: int) -> None:
        """Releases the tokens of items that the device took or that were dropped."""
        self.tokens -= tokens
        self._admit_waiting()

    def release_request(self) -> None:
        """Releases a request that was answered or cancelled."""
        self.requests -= 1
        self._admit_waiting()

    def _admit_waiting(self) -> None:
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

    def _has_room(self, tokens: int, limit: int | None = None) -> bool:
        return self.requests < self._max_requests and self.tokens + tokens <= (limit or self._max_tokens)

    def _refuse_if_never(self, tokens: int, limit: int | None = None) -> None:
        if tokens > (limit or self._max_tokens):
            raise input_too_large(
                self._inputs,
                f"hold {tokens} tokens in total; the maximum per call is {limit or self._max_tokens}; send fewer",
            )

    def overloaded(self, tokens: int, **metadata: str) -> TorchlessError:
        """The error for a request of `tokens` tokens, with the time after which there should be capacity."""
        excess = max(self.tokens + tokens - self._max_tokens, self.tokens // 2)
        seconds = self.drain_rate.seconds_for(excess)
        return TorchlessError(
            ErrorKind.OVERLOADED,
            "the service is overloaded; retry after the suggested delay",
            retry_after_s=min(max(seconds, _SHORTEST_HINT_S), _LONGEST_HINT_S),
            metadata=metadata,
        )
