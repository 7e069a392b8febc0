"""Runs the scheduler: requests come from an event loop, passes go over the device on one thread.

The thread asks the scheduler for its next pass itself, so the device never waits for the event loop between passes.
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
from bentos.serving.batching.scheduler import Pass, PassLimits, Scheduler, Work
from bentos.serving.batching.settings import BatchingSettings
from bentos.serving.readiness import LEAVING
from torchless.contracts.errors import CALLERS_FAULT, TOO_LATE, ErrorKind, TorchlessError

P = TypeVar("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_DEAD = TorchlessError(
    ErrorKind.GPU_UNAVAILABLE, "the service lost the thread that drives its device; it has to be started again"
)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What came of a request."""

    results: list[R]
    """One an item, in the order of the request's items."""
    queue_s: float
    """From admission until its last item was taken, in seconds."""
    device_s: float
    """Sum of the passes that held its items, in seconds."""


class PassObserver(Protocol):
    """Whoever wants to know what the device was given; called on the device's thread."""

    def pass_done(self, lane: Hashable, items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """One pass is done: its items, their tokens without and with padding, and how long it took, in seconds."""


@dataclass(eq=False, slots=True)
class _Job(Generic[P, R]):
    """A request on its way through."""

    work: Work[P]
    answer: asyncio.Future[Outcome[R]]
    admitted_at: float
    results: dict[int, R] = field(default_factory=dict)
    taken_at: float = 0.0
    device_s: float = 0.0


class Batcher(Generic[P, R]):
    """Joins concurrent requests into passes over one device.

    Args:
        run: Runs one pass: a lane and the payloads of its items, to one result an item. Called on the device's thread
            only. A `TorchlessError` of kind GPU_UNAVAILABLE fails the pass as a whole; after any other exception each
            request of the pass is run alone, so that only the one at fault fails.
        limits: What one pass of a lane may hold.
        settings: Window and admission.
        observer: Told of every pass.
        clock: Seconds, monotonic.
        inputs: Name of the request's field that holds the items, for messages.
    """

    def __init__(
        self,
        run: Callable[[Any, list[P]], Sequence[R]],
        limits: Callable[[Any], PassLimits],
        settings: BatchingSettings,
        observer: PassObserver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        inputs: str = "texts",
    ) -> None:
        self._run = run
        self._scheduler: Scheduler[P] = Scheduler(limits)
        self._window_s = settings.window_ms / 1000
        self._pass_s = settings.max_pass_ms / 1000
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
        """Works off what waits, then ends the thread. `submit` refuses from now on."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the device."""
        return self._scheduler.waiting_tokens

    async def submit(self, work: Work[P], *, wait_for_room: bool = False) -> Outcome[R]:
        """Runs the request's items in passes with others'. Cancelling drops what the device has not taken yet.

        Args:
            work: The items. `expires_at` is in the batcher's clock.
            wait_for_room: Wait while there is no room, instead of refusing.

        Raises:
            TorchlessError: OVERLOADED or INPUT_TOO_LARGE from admission, OVERLOADED also when the request would expire
                before its turn; DEADLINE when it expired while it waited; UNREACHABLE when the batcher stops;
                GPU_UNAVAILABLE when the device's thread is gone; else what the pass raised.
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
        """Refuses now what would only expire in the queue, and cost the device what it was served until then."""
        if work.expires_at is None:
            return
        with self._changed:
            before = self._scheduler.tokens_before(work)
        needed = self.admission.drain_rate.seconds_for(self._on_device + before + work.waiting_tokens)
        # What is before it ends somewhere within a pass, and its own pass is answered as a whole.
        if before and self._clock() + needed + self._pass_s > work.expires_at:
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
            self._serve_passes()
        except BaseException:
            # A defect of ours. Without its thread the batcher can answer nobody, so nobody is left waiting.
            logger.exception("the device's thread died")
            self._dead = True
            self._deliver(self._fail_all)

    def _serve_passes(self) -> None:
        while (made := self._next_pass()) is not None:
            started = self._clock()
            self._last_items, self._on_device = len(made.items), made.tokens
            self._deliver(self._taken, made, started)
            outcomes = self._run_pass(made)
            seconds = self._clock() - started
            self._on_device = 0
            if self._observer is not None:
                self._observer.pass_done(made.lane, len(made.items), made.tokens, made.padded_tokens, seconds)
            self._deliver(self._done, made, outcomes, seconds)

    def _next_pass(self) -> Pass[P] | None:
        with self._changed:
            while True:
                if not self._scheduler.waiting_requests:
                    if self._stopping:
                        return None
                    self._changed.wait()
                self._wait_for_company()
                for work, tokens in self._scheduler.drop_expired(self._clock()):
                    self._deliver(self._expired, work, tokens)
                made = self._scheduler.next_pass(self._pass_budget())
                if made is not None:
                    return made

    def _pass_budget(self) -> int | None:
        rate = self.admission.drain_rate.tokens_per_second
        return None if not self._pass_s or rate is None else int(rate * self._pass_s)

    def _wait_for_company(self) -> None:
        """Waits, within the window, for as many items as the last pass held.

        Callers that were answered together are back together a moment later; a pass that starts with the first of them
        leaves the others a whole pass behind. A lone caller, and a window that brought nobody, wait no more.
        """
        ends = self._clock() + self._window_s
        while (left := ends - self._clock()) > 0 and not self._stopping:
            if self._scheduler.waiting_items >= self._last_items or self._scheduler.has_full_pass():
                return
            self._changed.wait(left)

    def _run_pass(self, made: Pass[P]) -> dict[Work[P], Sequence[R] | BaseException]:
        shares: dict[Work[P], list[int]] = {}
        for position, (work, _) in enumerate(made.items):
            shares.setdefault(work, []).append(position)
        payloads = made.payloads
        try:
            results = self._checked(made.lane, payloads)
        except Exception as error:  # the boundary to the model: whatever it raises is the requests' answer
            if len(shares) == 1 or _is_everybodys(error):
                return dict.fromkeys(shares, error)
            logger.warning(
                "a pass of %d requests failed with %s; running each alone", len(shares), type(error).__name__
            )
            return {w: self._run_alone(made.lane, [payloads[i] for i in share]) for w, share in shares.items()}
        return {work: [results[i] for i in share] for work, share in shares.items()}

    def _run_alone(self, lane: Hashable, payloads: list[P]) -> Sequence[R] | BaseException:
        try:
            return self._checked(lane, payloads)
        except Exception as error:  # as in _run_pass
            return error

    def _checked(self, lane: Hashable, payloads: list[P]) -> Sequence[R]:
        results = self._run(lane, payloads)
        if len(results) != len(payloads):
            raise RuntimeError(f"the model answered {len(results)} results for {len(payloads)} items")
        return results

    def _deliver(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            logger.debug("the event loop closed before a pass was delivered")

    # On the event loop.

    def _taken(self, made: Pass[P], started: float) -> None:
        self.admission.release_tokens(made.tokens)
        for work, _ in made.items:
            if job := self._jobs.get(work):
                job.taken_at = started

    def _expired(self, work: Work[P], tokens: int) -> None:
        self.admission.release_tokens(tokens)
        self._fail(work, TorchlessError(ErrorKind.DEADLINE, "the deadline passed while the request waited"))

    def _done(self, made: Pass[P], outcomes: dict[Work[P], Sequence[R] | BaseException], seconds: float) -> None:
        self.admission.drain_rate.observe(made.tokens, seconds)
        indices: dict[Work[P], list[int]] = {}
        for work, index in made.items:
            indices.setdefault(work, []).append(index)
        for work, outcome in outcomes.items():
            if isinstance(outcome, BaseException):
                self._fail(work, _for_the_caller(outcome).copy())
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


def _is_everybodys(error: Exception) -> bool:
    return isinstance(error, TorchlessError) and error.kind not in CALLERS_FAULT


def _for_the_caller(error: BaseException) -> TorchlessError:
    if isinstance(error, TorchlessError):
        return error
    logger.error("the model failed", exc_info=error)
    return TorchlessError(ErrorKind.INTERNAL, "the model failed on this request")
