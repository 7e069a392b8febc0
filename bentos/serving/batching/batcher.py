"""Runs the scheduler: requests come from an event loop, batches run on the device's thread.

The thread takes its next batch from the scheduler itself, so the device never waits for the event loop between batches.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from bentos.serving.batching.admission import Admission
from bentos.serving.batching.scheduler import Batch, BatchLimits, Scheduler, Work
from bentos.serving.batching.settings import BatchingSettings
from bentos.serving.readiness import LEAVING
from torchless.contracts.errors import TOO_LATE, ErrorKind, TorchlessError

P = TypeVar("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_DEAD = TorchlessError(
    ErrorKind.GPU_UNAVAILABLE, "the thread that drives the service's device has died; the service must be restarted"
)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """The results of a request."""

    results: list[R]
    """One per item, in the order of the request's items."""
    queue_s: float
    """Time from admission until the device took its last item, in seconds."""
    device_s: float
    """Total time of the batches that held its items, in seconds."""


class BatchObserver(Protocol):
    """Observes every batch, on the device's thread."""

    def batch_done(self, key: Hashable, items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Called after a batch with its items, their tokens without and with padding, and its duration in seconds."""


@dataclass(eq=False, slots=True)
class _Job(Generic[P, R]):
    """A request in progress."""

    work: Work[P]
    answer: asyncio.Future[Outcome[R]]
    admitted_at: float
    results: dict[int, R] = field(default_factory=dict)
    taken_at: float = 0.0
    device_s: float = 0.0


class Batcher(Generic[P, R]):
    """Joins concurrent requests into batches for one device.

    Args:
        run: Runs one batch: takes a key and the payloads of its items, returns one result per item. Called on the
            device's thread only. A `TorchlessError` that is not the caller's fault fails the whole batch; after any
            other exception each request of the batch runs alone, so that only the one at fault fails.
        limits: Limits of a batch with a given key.
        settings: Window and admission.
        observer: Observes every batch.
        clock: Monotonic time in seconds.
        inputs: Name of the request's field that holds the items, for messages.
    """

    def __init__(
        self,
        run: Callable[[Any, list[P]], Sequence[R]],
        limits: Callable[[Any], BatchLimits],
        settings: BatchingSettings,
        observer: BatchObserver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        inputs: str = "texts",
    ) -> None:
        self._run = run
        self._scheduler: Scheduler[P] = Scheduler(limits)
        self._window_s = settings.window_ms / 1000
        self._batch_s = settings.max_batch_ms / 1000
        self._observer = observer
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: dict[Work[P], _Job[P, R]] = {}
        self._stopping = False
        self._dead = False
        self._last_items = 1
        self._on_device = 0
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self.admission = Admission(settings, inputs)

    def start(self) -> None:
        """Starts the device's thread; requests come from the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finishes the waiting requests, then ends the thread. `submit` refuses from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the device."""
        return self._scheduler.waiting_tokens

    async def submit(self, work: Work[P], *, wait_for_room: bool = False) -> Outcome[R]:
        """Runs the request's items in shared batches. Cancelling drops the items that the device has not taken yet.

        Args:
            work: The items. `expires_at` is in the batcher's clock.
            wait_for_room: Wait for capacity instead of refusing.

        Raises:
            TorchlessError: OVERLOADED or INPUT_TOO_LARGE from admission; OVERLOADED also when the request would expire
                before its turn; DEADLINE when it expired in the queue; UNREACHABLE when the batcher stops;
                GPU_UNAVAILABLE when the device's thread has died; otherwise the error of the batch.
        """
        tokens = work.waiting_tokens
        if wait_for_room:
            await self.admission.wait_for_room(tokens)
        else:
            self._refuse_if_too_late(work)
            self.admission.admit(tokens)
        job: _Job[P, R] = _Job(work, asyncio.get_running_loop().create_future(), self._clock())
        self._jobs[work] = job
        try:
            self._enqueue(work, tokens)
            return await job.answer
        finally:
            del self._jobs[work]
            with self._changed:
                dropped = self._scheduler.drop(work)
            self.admission.release_tokens(dropped)
            self.admission.release_request()

    def _refuse_if_too_late(self, work: Work[P]) -> None:
        """Refuses a request that would expire before it is complete, so that no batch is computed in vain."""
        if work.expires_at is None:
            return
        with self._changed:
            before = self._scheduler.tokens_before(work)
        needed = self.admission.drain_rate.seconds_for(self._on_device + before + work.waiting_tokens)
        # The work before it may end in the middle of a batch, and a batch is answered as a whole.
        if before and self._clock() + needed + self._batch_s > work.expires_at:
            raise self.admission.overloaded(work.waiting_tokens, reason=TOO_LATE)

    def _enqueue(self, work: Work[P], tokens: int) -> None:
        try:
            with self._changed:
                if self._dead:
                    raise _DEAD.copy()
                if self._stopping:
                    raise LEAVING.copy()
                self._scheduler.add(work)
                self._changed.notify()
        except BaseException:
            self.admission.release_tokens(tokens)
            raise

    # On the device's thread.

    def _work(self) -> None:
        try:
            self._serve_batches()
        except BaseException:
            # A defect of ours. Without its thread the batcher cannot answer, so every request fails at once.
            logger.exception("the device thread died")
            self._dead = True
            self._deliver(self._fail_all)

    def _serve_batches(self) -> None:
        while (batch := self._next_batch()) is not None:
            started = self._clock()
            self._last_items, self._on_device = len(batch.items), batch.tokens
            self._deliver(self._taken, batch, started)
            outcomes = self._run_batch(batch)
            seconds = self._clock() - started
            self._on_device = 0
            if self._observer is not None:
                self._observer.batch_done(batch.key, len(batch.items), batch.tokens, batch.padded_tokens, seconds)
            self._deliver(self._done, batch, outcomes, seconds)

    def _next_batch(self) -> Batch[P] | None:
        with self._changed:
            while True:
                if not self._scheduler.waiting_requests:
                    if self._stopping:
                        return None
                    self._changed.wait()
                self._wait_for_more_items()
                for work, tokens in self._scheduler.drop_expired(self._clock()):
                    self._deliver(self._expired, work, tokens)
                batch = self._scheduler.next_batch(self._batch_budget())
                if batch is not None:
                    return batch

    def _batch_budget(self) -> int | None:
        rate = self.admission.drain_rate.tokens_per_second
        return None if not self._batch_s or rate is None else int(rate * self._batch_s)

    def _wait_for_more_items(self) -> None:
        """Waits, up to the window, for as many items as the last batch held.

        Callers that were answered together send their next requests at about the same time. A batch that starts with
        the first of these makes the others wait for a whole batch. A lone caller never waits.
        """
        ends = self._clock() + self._window_s
        while (left := ends - self._clock()) > 0 and not self._stopping:
            if self._scheduler.waiting_items >= self._last_items or self._scheduler.has_full_batch():
                return
            self._changed.wait(left)

    def _run_batch(self, batch: Batch[P]) -> dict[Work[P], Sequence[R] | BaseException]:
        shares: dict[Work[P], list[int]] = {}
        for position, (work, _) in enumerate(batch.items):
            shares.setdefault(work, []).append(position)
        payloads = batch.payloads
        try:
            results = self._checked(batch.key, payloads)
        except Exception as error:  # the boundary to the model: every exception becomes the requests' answer
            if len(shares) == 1 or _fails_whole_batch(error):
                return dict.fromkeys(shares, error)
            logger.warning(
                "a batch of %d requests failed with %s; running each alone", len(shares), type(error).__name__
            )
            return {w: self._run_alone(batch.key, [payloads[i] for i in share]) for w, share in shares.items()}
        return {work: [results[i] for i in share] for work, share in shares.items()}

    def _run_alone(self, key: Hashable, payloads: list[P]) -> Sequence[R] | BaseException:
        try:
            return self._checked(key, payloads)
        except Exception as error:  # as in _run_batch
            return error

    def _checked(self, key: Hashable, payloads: list[P]) -> Sequence[R]:
        results = self._run(key, payloads)
        if len(results) != len(payloads):
            raise RuntimeError(f"the model returned {len(results)} results for {len(payloads)} items")
        return results

    def _deliver(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed, so no caller is left
            logger.debug("the event loop closed before a batch was delivered")

    # On the event loop.

    def _taken(self, batch: Batch[P], started: float) -> None:
        self.admission.release_tokens(batch.tokens)
        for work, _ in batch.items:
            if job := self._jobs.get(work):
                job.taken_at = started

    def _expired(self, work: Work[P], tokens: int) -> None:
        self.admission.release_tokens(tokens)
        self._fail(work, TorchlessError(ErrorKind.DEADLINE, "the deadline passed while the request was queued"))

    def _done(self, batch: Batch[P], outcomes: dict[Work[P], Sequence[R] | BaseException], seconds: float) -> None:
        self.admission.drain_rate.observe(batch.tokens, seconds)
        indices: dict[Work[P], list[int]] = {}
        for work, index in batch.items:
            indices.setdefault(work, []).append(index)
        for work, outcome in outcomes.items():
            if isinstance(outcome, BaseException):
                self._fail(work, _as_torchless_error(outcome).copy())
            elif job := self._jobs.get(work):
                job.device_s += seconds
                job.results.update(zip(indices[work], outcome, strict=True))
                self._finish_if_whole(job)

    def _finish_if_whole(self, job: _Job[P, R]) -> None:
        count = len(job.work.lengths)
        if len(job.results) == count and not job.answer.done():
            results = [job.results[i] for i in range(count)]
            job.answer.set_result(Outcome(results, job.taken_at - job.admitted_at, job.device_s))

    def _fail_all(self) -> None:
        self.admission.fail_waiting(_DEAD)
        for work in list(self._jobs):
            self._fail(work, _DEAD.copy())

    def _fail(self, work: Work[P], error: TorchlessError) -> None:
        job = self._jobs.get(work)
        if job is not None and not job.answer.done():
            job.answer.set_exception(error)


def _fails_whole_batch(error: Exception) -> bool:
    return isinstance(error, TorchlessError) and not error.kind.policy.callers_fault


def _as_torchless_error(error: BaseException) -> TorchlessError:
    if isinstance(error, TorchlessError):
        return error
    logger.error("the model failed", exc_info=error)
    return TorchlessError(ErrorKind.INTERNAL, "the model failed on this request")
