"""The adaptive limit: its rules one by one, and how it does in front of a simulated service that batches."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from torchless.clients.adaptive_limit import AdaptiveLimit, ConcurrencySettings, Permit
from torchless.contracts.errors import TOO_LATE, ErrorKind, TorchlessError

OVERLOADED = TorchlessError(ErrorKind.OVERLOADED, "busy")
DEADLINE = TorchlessError(ErrorKind.DEADLINE, "late")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A limit, and calls of whatever outcome through it."""

    def __init__(self, **settings: float) -> None:
        self.clock = Clock()
        values = {"initial": 10, "min": 2, "max": 100, "decrease": 0.5} | settings
        self.limit = AdaptiveLimit(ConcurrencySettings.model_validate(values), "embedding", self.clock)

    def enter(self, calls: int) -> list[Permit]:
        return [self.limit.call().__enter__() for _ in range(calls)]

    def leave(self, permits: list[Permit], error: BaseException | None = None) -> None:
        for permit in permits:
            permit.__exit__(None if error is None else type(error), error, None)

    def round_trip(self, calls: int, error: BaseException | None = None, seconds: float = 1.0) -> None:
        permits = self.enter(calls)
        self.clock.now += seconds
        self.leave(permits, error)


def refusal_of(limit: AdaptiveLimit) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught, limit.call():
        pass
    return caught.value


def test_calls_past_the_limit_are_refused_at_once_with_a_hint() -> None:
    scene = Scene(initial=2)
    permits = scene.enter(2)
    error = refusal_of(scene.limit)
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_s is not None
    assert "embedding" in error.message
    assert (scene.limit.in_flight, scene.limit.refused) == (2, 1)

    scene.leave(permits)
    with scene.limit.call():
        assert scene.limit.in_flight == 1


@pytest.mark.parametrize("error", [None, OVERLOADED, DEADLINE, ValueError("ours"), asyncio.CancelledError()])
def test_permit_is_returned_after_any_end(error: BaseException | None) -> None:
    scene = Scene()
    with suppress(BaseException), scene.limit.call():
        assert scene.limit.in_flight == 1
        if error is not None:
            raise error
    assert scene.limit.in_flight == 0


async def test_cancelled_call_returns_its_permit_and_changes_nothing() -> None:
    limit = AdaptiveLimit(ConcurrencySettings(initial=8), "embedding")
    entered = asyncio.Event()

    async def call() -> None:
        with limit.call():
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (limit.in_flight, limit.value) == (0, 8)


@pytest.mark.parametrize("kind", sorted(set(ErrorKind) - {ErrorKind.OVERLOADED, ErrorKind.DEADLINE}))
def test_other_errors_do_not_change_the_limit(kind: ErrorKind) -> None:
    scene = Scene()
    scene.round_trip(10, TorchlessError(kind, "no"))
    assert scene.limit.value == 10


def test_limit_grows_with_each_answer_until_congestion_then_by_one_a_round_trip() -> None:
    scene = Scene()
    scene.round_trip(10)
    # Six of them found five or more in flight, themselves included.
    assert scene.limit.value == 16
    scene.round_trip(16)
    assert scene.limit.value >= 16 + 6
    scene.round_trip(1, OVERLOADED)
    before = scene.limit.value
    for _ in range(8):
        scene.round_trip(scene.limit.value)
    assert before + 4 <= scene.limit.value <= before + 8


def test_limit_does_not_grow_while_less_than_half_of_it_is_used() -> None:
    scene = Scene()
    for _ in range(50):
        scene.round_trip(4)
    assert scene.limit.value == 10
    for _ in range(50):
        scene.round_trip(8)
    assert scene.limit.value in {16, 17}


def test_many_refusals_in_one_round_trip_count_once() -> None:
    scene = Scene(initial=80)
    scene.round_trip(5)  # answers take a second
    together = scene.enter(20)
    scene.leave(together, OVERLOADED)
    assert scene.limit.value == 40
    for _ in range(9):  # and calls that begin afterwards are refused at once
        scene.round_trip(1, OVERLOADED, seconds=0.1)
    assert scene.limit.value == 40
    scene.round_trip(1, OVERLOADED, seconds=0.2)
    assert scene.limit.value == 20


def test_calls_from_before_a_decrease_cause_no_second_one() -> None:
    scene = Scene(initial=80)
    old = scene.enter(10)
    scene.round_trip(1, OVERLOADED)
    scene.clock.now += 60
    scene.leave(old, OVERLOADED)
    assert scene.limit.value == 40


@pytest.mark.parametrize(("missed", "left"), [(64, 32), (16, 56), (4, 62)])
def test_missed_deadlines_reduce_the_limit_by_half_of_their_share_per_round_trip(missed: int, left: int) -> None:
    scene = Scene(initial=64, max=64)
    scene.round_trip(1)
    scene.clock.now += 1
    permits = scene.enter(64)
    scene.clock.now += 1
    scene.leave(permits[:-missed])
    scene.leave(permits[-missed:], DEADLINE)
    # The first call that was begun after them ends their round trip.
    scene.round_trip(1)
    assert scene.limit.value == pytest.approx(left, abs=1)


def test_missed_deadlines_of_few_calls_do_not_count() -> None:
    scene = Scene(initial=80)
    scene.round_trip(10)
    for _ in range(20):
        scene.round_trip(10, DEADLINE, seconds=5)
    assert scene.limit.value == 80


def test_deadline_shorter_than_recent_answers_does_not_count() -> None:
    scene = Scene()
    scene.round_trip(1, seconds=1.0)
    for _ in range(50):
        scene.round_trip(1, DEADLINE, seconds=0.01)
    assert scene.limit.value == 10


def test_limit_stays_within_its_bounds() -> None:
    scene = Scene(initial=10, min=7, max=12)
    for _ in range(5):
        scene.round_trip(scene.limit.value)
    assert scene.limit.value == 12
    for _ in range(5):
        scene.round_trip(1, OVERLOADED)
    assert scene.limit.value == 7


def test_reconfigured_limit_keeps_its_value_within_the_new_bounds() -> None:
    scene = Scene()
    scene.round_trip(10)
    held = scene.enter(3)
    scene.limit.reconfigure(ConcurrencySettings(initial=5, min=1, max=50))
    assert (scene.limit.value, scene.limit.in_flight) == (16, 3)
    scene.limit.reconfigure(ConcurrencySettings(initial=5, min=1, max=15))
    assert scene.limit.value == 15
    scene.limit.reconfigure(ConcurrencySettings(initial=2, min=1, max=2))
    assert refusal_of(scene.limit).kind is ErrorKind.OVERLOADED
    scene.leave(held)
    assert scene.limit.in_flight == 0


def test_disabled_limit_refuses_nothing_and_only_counts() -> None:
    scene = Scene(enabled=False)
    permits = scene.enter(500)
    assert scene.limit.in_flight == 500
    scene.leave(permits, OVERLOADED)
    assert (scene.limit.in_flight, scene.limit.value) == (0, 10)


def test_retry_hint_grows_with_the_refusals_of_a_round_trip() -> None:
    scene = Scene(initial=10, max=10)
    scene.round_trip(1, seconds=2.0)
    permits = scene.enter(10)
    hints = [refusal_of(scene.limit).retry_after_s or 0 for _ in range(30)]
    assert hints == sorted(hints)
    assert hints[0] == pytest.approx(2.2)
    assert hints[-1] == pytest.approx(8.0)
    scene.clock.now += 2
    assert refusal_of(scene.limit).retry_after_s == pytest.approx(2.2)
    scene.leave(permits)


@pytest.mark.parametrize("usual", [0.0001, 10_000.0])
def test_retry_hint_is_bounded(usual: float) -> None:
    scene = Scene(initial=10, max=10)
    scene.round_trip(1, seconds=usual)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(scene.limit.call())
        assert 0.1 <= (refusal_of(scene.limit).retry_after_s or 0) <= 60


@pytest.mark.parametrize("values", [{"initial": 1, "min": 2}, {"initial": 9, "max": 8}, {"min": 0}, {"decrease": 1}])
def test_settings_that_contradict_each_other_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ConcurrencySettings.model_validate(values)


@dataclass
class BatchingService:
    """A service as `bentos/serving/batching` is one: passes over whatever waits, and a bounded queue.

    A pass of n calls takes `(PASS_S + CALL_S * n) / speed` seconds. It refuses what would not be done in time.
    """

    PASS_S = 0.05
    CALL_S = 0.0075
    MOST = 32
    WAITING = 128
    CAPACITY = MOST / (PASS_S + CALL_S * MOST)  # calls a second

    speed: float = 1.0
    queue: deque[SimulatedCall] = field(default_factory=deque)
    busy: bool = False
    rate: float | None = None
    pass_s: float = 0.0

    def takes(self, patience: float) -> bool:
        if not self.queue or self.rate is None:
            return True
        return len(self.queue) < self.WAITING and (len(self.queue) + 1) / self.rate + self.pass_s <= patience


@dataclass(eq=False)
class SimulatedCall:
    limit: AdaptiveLimit
    permit: Permit
    expires: float
    done: bool = False

    def end(self, error: TorchlessError | None) -> None:
        self.done = True
        self.permit.__exit__(None if error is None else type(error), error, None)


@dataclass
class Second:
    """What happened in one second of simulated time."""

    offered: int = 0
    answered: int = 0
    refused_here: int = 0
    refused_there: int = 0
    missed: int = 0


class Simulation:
    """Calls that arrive at random (open loop), through one limit or several, to one service."""

    def __init__(self, limits: int = 1, deadline_s: float = 5.0, impatient: float = 0.0) -> None:
        self.clock = Clock()
        settings = ConcurrencySettings(initial=64, min=8, max=512)
        self.limits = [AdaptiveLimit(settings, "embedding", self.clock) for _ in range(limits)]
        self.service = BatchingService()
        self.seconds: list[Second] = []
        self._deadline_s = deadline_s
        self._impatient = impatient
        self._random = random.Random(7)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def run(self, seconds: int, load: float, speed: float = 1.0) -> list[Second]:
        """Goes on for `seconds` at `load` times the full capacity, and answers what happened in each of them."""
        self.service.speed = speed
        began = len(self.seconds)
        self.seconds += [Second() for _ in range(seconds)]
        ends = float(len(self.seconds))
        arrival = self.clock.now
        while (arrival := arrival + self._random.expovariate(load * BatchingService.CAPACITY)) < ends:
            self._at(arrival, self._arrive)
        while self._events and self._events[0][0] < ends:
            self.clock.now, _, action = heapq.heappop(self._events)
            action()
        self.clock.now = ends
        return self.seconds[began:]

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), action))

    @property
    def _now(self) -> Second:
        return self.seconds[int(self.clock.now)]

    def _arrive(self) -> None:
        limit = self._random.choice(self.limits)
        self._now.offered += 1
        try:
            permit = limit.call().__enter__()
        except TorchlessError:
            self._now.refused_here += 1
            return
        if self._random.random() < self._impatient:
            call = SimulatedCall(limit, permit, self.clock.now)
            self._at(self.clock.now + 1.0, lambda: self._expire(call))  # something that takes longer than its deadline
            return
        call = SimulatedCall(limit, permit, self.clock.now + self._deadline_s)
        if not self.service.takes(self._deadline_s):
            self._at(self.clock.now + 0.001, lambda: self._refuse(call))
            return
        self.service.queue.append(call)
        self._at(call.expires, lambda: self._expire(call))
        if not self.service.busy:
            self.service.busy = True
            self._at(self.clock.now, self._begin_pass)

    def _refuse(self, call: SimulatedCall) -> None:
        self._now.refused_there += 1
        call.end(OVERLOADED)

    def _expire(self, call: SimulatedCall) -> None:
        if not call.done:
            self._now.missed += 1
            call.end(DEADLINE)

    def _begin_pass(self) -> None:
        service = self.service
        batch: list[SimulatedCall] = []
        while service.queue and len(batch) < service.MOST:
            call = service.queue.popleft()
            if not call.done:
                batch.append(call)
        service.busy = bool(batch)
        if batch:
            took = (service.PASS_S + service.CALL_S * len(batch)) / service.speed
            self._at(self.clock.now + took, lambda: self._end_pass(batch, took))

    def _end_pass(self, batch: list[SimulatedCall], took: float) -> None:
        service, rate = self.service, len(batch) / took
        service.pass_s = took
        service.rate = rate if service.rate is None else service.rate + 0.2 * (rate - service.rate)
        for call in batch:
            if not call.done:
                self._now.answered += 1
                call.end(None)
        self._begin_pass()


def goodput(seconds: list[Second]) -> float:
    """Answers, as a share of what the service can do at its full speed."""
    return sum(each.answered for each in seconds) / len(seconds) / BatchingService.CAPACITY


def share(seconds: list[Second], count: Callable[[Second], int]) -> float:
    return sum(map(count, seconds)) / sum(each.offered for each in seconds)


def refused(second: Second) -> int:
    return second.refused_here + second.refused_there


@pytest.mark.parametrize("limits", [1, 3])
def test_limit_keeps_the_service_full_at_four_times_its_capacity(limits: int) -> None:
    simulation = Simulation(limits)
    calm = simulation.run(20, load=0.7)
    storm = simulation.run(40, load=4)
    after = simulation.run(20, load=0.7)

    assert share(calm, refused) == 0
    assert goodput(storm) > 0.9
    assert share(storm, lambda s: s.refused_there) < 0.02
    assert share(storm, lambda s: s.missed) < 0.01
    # No collapse, and none refused that could be served, from the third second on.
    assert share(after[2:], refused) == 0
    assert goodput(after) > 0.65


@pytest.mark.parametrize("limits", [1, 3])
def test_limit_follows_a_capacity_that_falls_to_a_quarter_and_returns(limits: int) -> None:
    simulation = Simulation(limits)
    simulation.run(20, load=2)
    quarter = simulation.run(40, load=2, speed=0.25)
    whole = simulation.run(40, load=2)

    assert goodput(quarter[15:]) > 0.8 * 0.25
    assert goodput(whole[:5]) > 0.75
    assert goodput(whole[10:]) > 0.9


def test_limit_falls_when_the_service_stops_and_recovers_with_it() -> None:
    simulation = Simulation()
    simulation.run(20, load=2)
    before = simulation.limits[0].value
    simulation.run(20, load=2, speed=0.001)
    assert simulation.limits[0].value < before / 4
    # The batch in progress when it stopped takes its time.
    simulation.service.busy = False
    simulation.service.queue.clear()
    simulation._events = [event for event in simulation._events if "pass" not in event[2].__qualname__]
    assert goodput(simulation.run(20, load=2)[5:]) > 0.8


def test_limits_of_two_callers_share_a_service() -> None:
    simulation = Simulation(limits=3)
    simulation.run(60, load=3)
    values = [limit.value for limit in simulation.limits]
    assert min(values) * 3 > max(values)


def test_callers_with_impossible_deadlines_do_not_starve_others() -> None:
    simulation = Simulation(impatient=0.03)
    seconds = simulation.run(120, load=0.7)
    assert sum(each.missed for each in seconds) > 150
    assert share(seconds, refused) < 0.01


def test_refusals_for_the_callers_deadline_count_only_while_the_limit_is_used() -> None:
    too_late = TorchlessError(ErrorKind.OVERLOADED, "too late", metadata={"reason": TOO_LATE})
    limit = AdaptiveLimit(ConcurrencySettings(initial=100, min=1), "embedding")
    for _ in range(50):
        with pytest.raises(TorchlessError), limit.call():
            raise too_late
    assert limit.value == 100
    with ExitStack() as others:
        for _ in range(60):
            others.enter_context(limit.call())
        with pytest.raises(TorchlessError), limit.call():
            raise too_late
        assert limit.value == 80
