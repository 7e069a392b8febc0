"""Decides which waiting items make the next batch.

Pure: no thread, no clock, no device, so that it is tested like any scheduler. The rules:

* A batch holds items of one key (one model), at most `max_items`, at most `max_tokens` counted with padding: its
  longest item times its number of items.
* The *anchor*, an item that must be in the batch, comes from the flow whose turn it is, and within the flow from the
  request whose turn it is; both then go to the back. A waiting request is therefore the anchor after at most as many
  batches as there were requests before it, whatever arrives meanwhile: nothing starves. (Round robin, as in Shreedhar
  and Varghese, "Efficient fair queueing using deficit round-robin", 1995.)
* The rest of the batch is filled evenly between flows, and within a flow from the request with the fewest tokens left.
  Small requests so get by a bulk one, and what was begun is finished before more is begun (Schrage, "A proof of the
  optimality of the shortest remaining processing time discipline", 1968); the anchors keep the long ones moving. Each
  request offers the item nearest in length to the anchor; one that would pad the batch too much stays.
* A request larger than a batch is served over several; nothing is ever joined across keys.
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
    """What one batch of a key may hold."""

    max_tokens: int
    """Tokens, padding included."""
    max_items: int
    """Items."""
    padding_share: float
    """Largest part of what an item adds to the batch that may be padding, in [0, 1)."""
    free_padding_tokens: int
    """Padding of the whole batch that is allowed whatever its share, in tokens."""

    def within(self, tokens: int) -> BatchLimits:
        """The same limits, but for at most `tokens` tokens."""
        return replace(self, max_tokens=min(self.max_tokens, tokens))

    def allow(self, batch: Batch[P], length: int) -> bool:
        """Whether an item of `length` tokens may join `made`: within the limits, and without much padding."""
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
    """Items share a batch only with an equal key."""
    lengths: Sequence[int]
    """Tokens of each item, each >= 1."""
    payloads: Sequence[P]
    """What the device needs of each item."""
    flow: Hashable = None
    """Whose request it is, for fairness between callers; None: nobody's in particular, which is a flow as well."""
    expires_at: float | None = None
    """Time, on the caller's clock, after which nobody waits for the answer; None: never."""
    waiting: list[int] = field(init=False)
    """Indices of the items not yet taken, shortest first."""
    waiting_tokens: int = field(init=False)
    """Tokens of the items not yet taken."""

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.lengths)), key=self.lengths.__getitem__)
        self.waiting_tokens = sum(self.lengths)

    def nearest(self, length: int) -> int:
        """Position in `waiting` of the item nearest in length to `length`; of two equally near the shorter."""
        right = bisect_left(self.waiting, length, key=self.lengths.__getitem__)
        if right == len(self.waiting):
            return right - 1
        if right == 0:
            return 0
        before, after = self.lengths[self.waiting[right - 1]], self.lengths[self.waiting[right]]
        return right - 1 if length - before <= after - length else right


@dataclass(slots=True)
class Batch(Generic[P]):
    """Items that go over the device together."""

    key: Hashable
    items: list[tuple[Work[P], int]] = field(default_factory=list)
    """Request and index of each item."""
    longest: int = 0
    """Tokens of the longest item."""
    tokens: int = 0
    """Tokens without padding."""

    @property
    def padded_tokens(self) -> int:
        """Tokens with padding, which is what the device computes."""
        return self.longest * len(self.items)

    @property
    def payloads(self) -> list[P]:
        """What the device needs, in the order of `items`."""
        return [work.payloads[index] for work, index in self.items]


class Scheduler(Generic[P]):
    """The waiting requests, and the next batch from among them.

    Args:
        limits: What a batch of a key may hold. An item longer than a key's `max_tokens` is refused by `add`.
    """

    def __init__(self, limits: Callable[[Any], BatchLimits]) -> None:
        self._limits = limits
        self._flows: dict[Hashable, deque[Work[P]]] = {}  # insertion order is the order of turns
        self.waiting_tokens = 0
        self.waiting_items = 0
        self.waiting_requests = 0

    def add(self, work: Work[P]) -> None:
        """Lets `work` wait.

        Raises:
            ValueError: An item alone is larger than a batch may be, or there is no item.
        """
        limit = self._limits(work.key).max_tokens
        if not work.lengths or max(work.lengths) > limit:
            raise ValueError(f"every item must have 1 to {limit} tokens, and there must be one")
        self._flows.setdefault(work.flow, deque()).append(work)
        self.waiting_requests += 1
        self.waiting_items += len(work.waiting)
        self.waiting_tokens += work.waiting_tokens

    def drop(self, work: Work[P]) -> int:
        """Forgets what `work` still has waiting, and returns how many tokens that were; twice is once.

        Items already in a batch are not affected.
        """
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
        """Drops the requests whose answer nobody waits for any more; returns each with its dropped tokens."""
        expired = [work for work in self._all() if work.expires_at is not None and work.expires_at <= now]
        return [(work, self.drop(work)) for work in expired]

    def next_batch(self, budget: int | None = None) -> Batch[P] | None:
        """Takes the next batch; None when nothing waits.

        Args:
            budget: Tokens, padding included, to which the batch is filled where the key's own limit is higher. Its
                first item may be larger.
        """
        if not self._flows:
            return None
        flow, queue = next(iter(self._flows.items()))
        first = queue[0]
        batch: Batch[P] = Batch(first.key)
        # The longest first: a request split over batches then goes from long to short, each batch padded least.
        self._take(batch, first, len(first.waiting) - 1)
        if first.waiting:
            queue.rotate(-1)
        if flow in self._flows:
            self._flows[flow] = self._flows.pop(flow)
        limits = self._limits(batch.key)
        self._fill(batch, first.flow, limits if budget is None else limits.within(budget))
        return batch

    def tokens_before(self, work: Work[P]) -> int:
        """Tokens of its flow that are likely to be served before `work` would be: of requests with no more left."""
        queue = self._flows.get(work.flow, ())
        return sum(other.waiting_tokens for other in queue if other.waiting_tokens <= work.waiting_tokens)

    def has_full_batch(self) -> bool:
        """Whether as much waits as a batch holds, so that waiting for more would gain nothing."""
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
            if flow_tokens != in_flow.get(work.flow, 0):  # another request of the flow was served since
                heapq.heappush(turns, (in_flow[work.flow], work.waiting_tokens, order, work))
                continue
            position = work.nearest(target)
            length = work.lengths[work.waiting[position]]
            if not limits.allow(batch, length):
                continue  # what it has left fits no better: out of this batch
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
