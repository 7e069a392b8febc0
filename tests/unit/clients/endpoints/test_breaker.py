"""The breaker against a clock that the test moves."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from torchless.clients.endpoint_state import BreakerState
from torchless.clients.endpoints.breaker import Breaker, Ticket
from torchless.clients.settings import BreakerSettings
from torchless.contracts.errors import ErrorKind, TorchlessError

COUNTING = (ErrorKind.UNREACHABLE, ErrorKind.DEADLINE)
LONG_S, SHORT_S = 30.0, 0.25


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def breaker(self, **settings: float) -> Breaker:
        """A closed breaker by this clock."""
        return Breaker(BreakerSettings.model_validate(settings), clock=self)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begun(breaker: Breaker, deadline_s: float = LONG_S) -> Ticket:
    ticket = breaker.begin(deadline_s)
    assert ticket is not None
    return ticket


def fail(breaker: Breaker, times: int = 1, kind: ErrorKind = ErrorKind.UNREACHABLE, deadline_s: float = LONG_S) -> None:
    for _ in range(times):
        begun(breaker, deadline_s).failed(TorchlessError(kind, "it failed"))


def opened(clock: Clock) -> Breaker:
    breaker = clock.breaker()
    fail(breaker, 5)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open(clock: Clock) -> tuple[Breaker, Ticket]:
    breaker = opened(clock)
    clock.now += 60
    return breaker, begun(breaker)


def test_five_failures_in_a_row_open_the_breaker_for_sixty_seconds(clock: Clock) -> None:
    breaker = clock.breaker()
    fail(breaker, 4)
    assert (breaker.state, breaker.next_probe_s) == (BreakerState.CLOSED, 0)
    fail(breaker)
    assert (breaker.state, breaker.next_probe_s, breaker.trips) == (BreakerState.OPEN, 60, 1)
    clock.now += 59.9
    assert breaker.begin(LONG_S) is None
    clock.now += 0.1
    assert breaker.admits
    assert begun(breaker)
    assert breaker.state is BreakerState.HALF_OPEN


def test_answer_resets_the_failure_count(clock: Clock) -> None:
    breaker = clock.breaker()
    for _ in range(3):
        fail(breaker, 4)
        begun(breaker).answered()
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind not in COUNTING])
def test_other_errors_count_as_answers(clock: Clock, kind: ErrorKind) -> None:
    breaker = clock.breaker()
    fail(breaker, 50, kind)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 4)
    fail(breaker, 1, kind)
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("kind", COUNTING)
def test_counted_errors_open_the_breaker(clock: Clock, kind: ErrorKind) -> None:
    breaker = clock.breaker()
    fail(breaker, 5, kind)
    assert breaker.state is BreakerState.OPEN


def test_missed_short_deadline_is_neither_failure_nor_answer(clock: Clock) -> None:
    breaker = clock.breaker()
    fail(breaker, 50, ErrorKind.DEADLINE, SHORT_S)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 4, ErrorKind.DEADLINE, LONG_S)
    fail(breaker, 50, ErrorKind.DEADLINE, SHORT_S)
    fail(breaker, 1, ErrorKind.DEADLINE, LONG_S)
    assert breaker.state is BreakerState.OPEN


def test_probe_with_a_missed_short_deadline_closes_nothing_and_frees_its_slot(clock: Clock) -> None:
    breaker, probe = half_open(clock)
    probe.failed(TorchlessError(ErrorKind.DEADLINE, "late"))
    assert breaker.state is BreakerState.OPEN

    clock.now += 60
    fail(breaker, 1, ErrorKind.DEADLINE, SHORT_S)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admits


def test_half_open_breaker_admits_one_probe_at_a_time(clock: Clock) -> None:
    breaker, probe = half_open(clock)
    assert [breaker.begin(LONG_S) for _ in range(50)] == [None] * 50
    probe.answered()
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED  # it began again


def test_failed_probe_opens_the_breaker_again(clock: Clock) -> None:
    breaker, probe = half_open(clock)
    clock.now += 7
    probe.failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))
    assert (breaker.state, breaker.next_probe_s, breaker.trips) == (BreakerState.OPEN, 60, 2)


def test_discarded_probe_frees_its_slot(clock: Clock) -> None:
    breaker, probe = half_open(clock)
    probe.discard()
    other = begun(breaker)
    assert breaker.begin(LONG_S) is None
    probe.discard()  # once more does not free the other's
    assert breaker.begin(LONG_S) is None
    other.answered()
    assert breaker.state is BreakerState.CLOSED


def test_results_of_calls_from_an_earlier_state_do_not_count(clock: Clock) -> None:
    breaker = clock.breaker()
    late = [begun(breaker) for _ in range(12)]
    fail(breaker, 5)
    late.pop().answered()
    late.pop().failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))
    assert (breaker.state, breaker.trips) == (BreakerState.OPEN, 1)
    clock.now += 60
    probe = begun(breaker)
    late.pop().answered()
    late.pop().failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))
    assert breaker.state is BreakerState.HALF_OPEN
    probe.answered()
    for each in late:
        each.failed(TorchlessError(ErrorKind.UNREACHABLE, "no"))
    assert (breaker.state, breaker.trips) == (BreakerState.CLOSED, 1)


def test_new_breaker_settings_apply_at_once(clock: Clock) -> None:
    breaker = opened(clock)
    breaker.reconfigure(BreakerSettings(open_s=5, failures=2))
    assert breaker.next_probe_s == 5
    clock.now += 5
    begun(breaker).answered()
    fail(breaker, 2)
    assert breaker.state is BreakerState.OPEN


def test_state_change_is_reported_once_with_the_new_state(clock: Clock) -> None:
    told: list[tuple[BreakerState, BreakerState, float, int]] = []
    breaker = Breaker(
        BreakerSettings(), lambda state: told.append((state, breaker.state, breaker.next_probe_s, breaker.trips)), clock
    )
    fail(breaker, 5)
    clock.now += 60
    begun(breaker).answered()
    begun(breaker).answered()
    assert told == [
        (BreakerState.OPEN, BreakerState.OPEN, 60, 1),
        (BreakerState.HALF_OPEN, BreakerState.HALF_OPEN, 0, 1),
        (BreakerState.CLOSED, BreakerState.CLOSED, 0, 1),
    ]


class Model:
    """What the breaker is to do, written down a second time: one call at a time, without aiobreaker."""

    def __init__(self, failures: int, open_s: float) -> None:
        self.limit, self.open_s = failures, open_s
        self.state, self.row, self.period, self.opened_at = BreakerState.CLOSED, 0, 0, 0.0
        self.probes = 0

    def may_begin(self, now: float) -> bool:
        if self.state is BreakerState.CLOSED:
            return True
        return not self.probes and (self.state is BreakerState.HALF_OPEN or now >= self.opened_at + self.open_s)

    def begin(self) -> int:
        if self.state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            self.probes += 1
        return self.period

    def end(self, period: int, failed: bool | None, now: float) -> None:
        if period != self.period:
            return
        if self.state is BreakerState.HALF_OPEN:
            self.probes -= 1
        if failed is None:
            return
        self.row = self.row + 1 if failed else 0
        if failed and (self.row >= self.limit or self.state is BreakerState.HALF_OPEN):
            self.opened_at = now
            self._become(BreakerState.OPEN)
        elif not failed and self.state is BreakerState.HALF_OPEN:
            self._become(BreakerState.CLOSED)

    def _become(self, state: BreakerState) -> None:
        self.state, self.probes = state, 0
        self.period += 1
        if state is BreakerState.CLOSED:
            self.row = 0


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin and end in any order; the breaker does as the model."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.changes = 0
        self.breaker = Breaker(BreakerSettings(failures=3, open_s=10), self._changed, self.clock)
        self.model = Model(3, 10)

    def _changed(self, state: BreakerState) -> None:
        self.changes += 1

    @rule(target=tickets, deadline_s=st.sampled_from([LONG_S, SHORT_S]))
    def begin(self, deadline_s: float) -> tuple[Ticket | None, int, float]:
        admitted = self.model.may_begin(self.clock.now)
        assert self.breaker.admits is admitted
        ticket = self.breaker.begin(deadline_s)
        assert (ticket is not None) is admitted
        return (ticket, self.model.begin() if admitted else -1, deadline_s)

    @rule(taken=consumes(tickets), kind=st.sampled_from([None, *ErrorKind]))
    def end(self, taken: tuple[Ticket | None, int, float], kind: ErrorKind | None) -> None:
        ticket, period, deadline_s = taken
        if ticket is None:
            return
        if kind is None:
            ticket.answered()
        else:
            ticket.failed(TorchlessError(kind, "it failed"))
        failed: bool | None = kind in COUNTING
        if kind is ErrorKind.DEADLINE and deadline_s < 1:
            failed = None
        self.model.end(period, failed, self.clock.now)

    @rule(taken=consumes(tickets))
    def abandon(self, taken: tuple[Ticket | None, int, float]) -> None:
        ticket, period, _ = taken
        if ticket is not None:
            ticket.discard()
            self.model.end(period, None, self.clock.now)
            ticket.discard()

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def allow_probe(self) -> None:
        self.breaker.allow_probe()
        if self.model.state is BreakerState.OPEN:
            self.model.opened_at = -math.inf

    @invariant()
    def is_as_the_model(self) -> None:
        assert self.breaker.state is self.model.state
        assert self.model.probes <= 1
        assert self.changes == self.model.period


class TestBreakerMachine(BreakerMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = hypothesis_settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_client_does_not_import_the_redis_client() -> None:
    code = "import sys, torchless.clients.embedding; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_large_request_needs_a_longer_missed_deadline_to_count(clock: Clock) -> None:
    breaker = clock.breaker(failures=1, deadline_counts_from_s=1)
    late = TorchlessError(ErrorKind.DEADLINE, "late")
    for size, deadline_s, state in ((16_000, 3.0, BreakerState.CLOSED), (16_000, 4.0, BreakerState.OPEN)):
        ticket = breaker.begin(deadline_s, size)
        assert ticket is not None
        ticket.failed(late)
        assert breaker.state is state


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_missed_deadline_of_ten_seconds_counts_for_any_request_size(clock: Clock, size: int) -> None:
    breaker = clock.breaker()
    for _ in range(5):
        ticket = breaker.begin(10.0, size)
        assert ticket is not None
        ticket.failed(TorchlessError(ErrorKind.DEADLINE, "late"))
    assert breaker.state is BreakerState.OPEN
