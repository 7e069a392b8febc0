"""Decides which waiting items form the next batch.

Pure: no thread, no clock, no device. The rules:

* A batch holds items with one key (one model), at most `max_items`, and at most `max_tokens` counted with padding: its
  longest item times its number of items.
* The *anchor*, an item that must be in the batch, comes from the flow whose turn it is, and within the flow from the
  request whose turn it is; both then go to the back. A waiting request is therefore the anchor after at most as many
  batches as there were requests before it, whatever arrives meanwhile: nothing starves. (Round robin, as in Shreedhar
  and Varghese, "Efficient fair queueing using deficit round-robin", 1995.)
* The rest of the batch is filled evenly between flows, and within a flow from the request with the fewest tokens left.
  So small requests overtake a bulk one, and started requests finish before others start (Schrage, "A proof of the
  optimality of the shortest remaining processing time discipline", 1968); the anchors keep the long ones moving. Each
  request offers the item nearest in length to the anchor; an item that would pad the batch too much stays.
* A request larger than a batch is served over several; items with different keys never share a batch.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of a batch."""

    max_tokens: int
    """Most tokens, padding included."""
    max_items: int
    """Most items."""
    padding_share: float
    """Largest share of padding in what an item adds to the batch, in [0, 1)."""
    free_padding_tokens: int
    """Padding of the whole batch that is always allowed, in tokens."""

    def within(self, tokens: int) -> BatchLimits:
        """The same limits with `max_tokens` at most `tokens`."""
        return replace(self, max_tokens=min(self.max_tokens, tokens))

    def allow(self, batch: Batch[P], length: int) -> bool:
        """Whether an item of `length` tokens fits into `batch` without too much padding."""
        items, longest = len(batch.items) + 1, max(batch.longest, length)
        padded = items * longest
        if items > self.max_items or padded > self.max_tokens:
            return False
        if padded - batch.tokens - length <= self.free_padding_tokens:
            return True
        added = padded - batch.padded_tokens
        return added - length <= self.padding_share * added


@dataclass(eq=False, slots=True)
class Work(Generic[P]):
    """One request's items, waiting for the device."""

    key: Hashable
    """Only items with equal keys share a batch."""
    lengths: Sequence[int]
    """Tokens of each item, each >= 1."""
    payloads: Sequence[P]
    """Input of the device for each item."""
    flow: Hashable = None
    """The caller, for fairness between callers; calls without one share the flow None."""
    expires_at: float | None = None
    """Time after which no caller waits for the answer, on the scheduler's user's clock; None: never."""
    waiting: list[int] = field(init=False)
    """Indices of the waiting items, shortest first."""
    waiting_tokens: int = field(init=False)
    """Tokens of the waiting items."""

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        self.waiting_tokens = sum(self.lengths)

    def nearest(self, length: int) -> int:
        """Position in `waiting` of the item nearest in length to `length`; of two equally near, the shorter."""
        right = bisect_left(self.waiting, length, key=self.lengths.__getitem__)
        if right == len(self.waiting):
            return right - 1
        if right == 0:
            return 0
        before, after = self.lengths[self.waiting[right - 1]], self.lengths[self.waiting[right]]
        return right - 1 if length - before <= after - length else right


@dataclass(slots=True)
class Batch(Generic[P]):
    """Items that the device computes together."""

    key: Hashable
    items: list[tuple[Work[P], int]] = field(default_factory=list)
    """Request and index of each item."""
    longest: int = 0
    """Tokens of the longest item."""
    tokens: int = 0
    """Tokens without padding."""

    @property
    def padded_tokens(self) -> int:
        """Tokens that the device computes: with padding."""
        return self.longest * len(self.items)

    @property
    def payloads(self) -> list[P]:
        """Input of the device, in the order of `items`."""
        return [work.payloads[index] for work, index in self.items]


class Scheduler(Generic[P]):
    """Holds the waiting requests and forms batches of them.

    Args:
        limits: Limits of a batch with a given key. `add` refuses an item longer than `max_tokens`.
    """

    def __init__(self, limits: Callable[[Any], BatchLimits]) -> None:
        self._limits = limits
        self._flows: dict[Hashable, deque[Work[P]]] = {}  # insertion order is the order of turns
        self.waiting_tokens = 0
        self.waiting_items = 0
        self.waiting_requests = 0

    def add(self, work: Work[P]) -> None:
        """Queues `work`.

        Raises:
            ValueError: An item is larger than a batch may be, or there is no item.
        """
        limit = self._limits(work.key).max_tokens
        if not work.lengths or max(work.lengths) > limit:
            raise ValueError(f"every item must have 1 to {limit} tokens, and there must be one")
        self._flows.setdefault(work.flow, deque()).append(work)
        self.waiting_requests += 1
        self.waiting_items += len(work.waiting)
        self.waiting_tokens += work.waiting_tokens

    def drop(self, work: Work[P]) -> int:
        """Drops the waiting items of `work` and returns their tokens; items already in a batch are not affected."""
        queue = self._flows.get(work.flow)
        if queue is None or work not in queue:
            return 0
        tokens = work.waiting_tokens
        self.waiting_items -= len(work.waiting)
        self.waiting_tokens -= tokens
        work.waiting, work.waiting_tokens = [], 0
        self._leave(work)
        return tokens

    def drop_expired(self, now: float) -> list[tuple[Work[P], int]]:
        """Drops the expired requests; returns each with its dropped tokens."""
        expired = [work for work in self._all() if work.expires_at is not None and work.expires_at <= now]
        return [(work, self.drop(work)) for work in expired]

    def next_batch(self, budget: int | None = None) -> Batch[P] | None:
        """Takes the next batch; None when no item waits.

        Args:
            budget: Tokens, padding included, to which the batch is filled when the key's own limit is higher. The
                first item may be larger.
        """
        if not self._flows:
            return None
        flow, queue = next(iter(self._flows.items()))
        first = queue[0]
        batch: Batch[P] = Batch(first.key)
        # Longest first: a request split over batches then goes from long to short, with the least padding.
        self._take(batch, first, len(first.waiting) - 1)
        if first.waiting:
            queue.rotate(-1)
        if flow in self._flows:
            self._flows[flow] = self._flows.pop(flow)
        limits = self._limits(batch.key)
        self._fill(batch, first.flow, limits if budget is None else limits.within(budget))
        return batch

    def tokens_before(self, work: Work[P]) -> int:
        """Tokens that are likely to be served before `work`: of requests of its flow with no more tokens left."""
        queue = self._flows.get(work.flow, ())
        return sum(other.waiting_tokens for other in queue if other.waiting_tokens <= work.waiting_tokens)

    def has_full_batch(self) -> bool:
        """Whether the waiting items fill a batch, so that waiting for more gains nothing."""
        if not self._flows:
            return False
        limits = self._limits(next(iter(self._flows.values()))[0].key)
        return self.waiting_items >= limits.max_items or self.waiting_tokens >= limits.max_tokens

    def _fill(self, batch: Batch[P], flow: Hashable, limits: BatchLimits) -> None:
        target = batch.longest
        in_flow: dict[Hashable, int] = {flow: batch.tokens}
        turns = [
            (in_flow.get(work.flow, 0), work.waiting_tokens, order, work)
            for order, work in enumerate(self._all())
            if work.key == batch.key
        ]
        heapq.heapify(turns)
        while turns and len(batch.items) < limits.max_items:
            flow_tokens, _, order, work = heapq.heappop(turns)
            if flow_tokens != in_flow.get(work.flow, 0):  # another request of the flow was served in between
                heapq.heappush(turns, (in_flow[work.flow], work.waiting_tokens, order, work))
                continue
            position = work.nearest(target)
            length = work.lengths[work.waiting[position]]
            if not limits.allow(batch, length):
                continue  # its other items fit no better, so the request leaves this batch
            self._take(batch, work, position)
            in_flow[work.flow] = in_flow.get(work.flow, 0) + length
            if work.waiting:
                heapq.heappush(turns, (in_flow[work.flow], work.waiting_tokens, order, work))

    def _take(self, batch: Batch[P], work: Work[P], position: int) -> None:
        index = work.waiting.pop(position)
        length = work.lengths[index]
        batch.items.append((work, index))
        batch.longest = max(batch.longest, length)
        batch.tokens += length
        work.waiting_tokens -= length
        self.waiting_items -= 1
        self.waiting_tokens -= length
        if not work.waiting:
            self._leave(work)

    def _leave(self, work: Work[P]) -> None:
        queue = self._flows[work.flow]
        queue.remove(work)
        self.waiting_requests -= 1
        if not queue:
            del self._flows[work.flow]

    def _all(self) -> Iterable[Work[P]]:
        return [work for queue in self._flows.values() for work in queue]
