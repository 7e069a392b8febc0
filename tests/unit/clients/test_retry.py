"""When a call is tried again, and how many retries a client may make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchless.clients.retry import RetryBudget, pause_s, plan_retry
from torchless.clients.settings import RetrySettings
from torchless.contracts.errors import ErrorKind, Retry, TorchlessError

ELSEWHERE_ONLY = {kind for kind in ErrorKind if kind.policy.retry is Retry.ELSEWHERE}


def error(kind: ErrorKind) -> TorchlessError:
    return TorchlessError(kind, "it failed")


@pytest.mark.parametrize("kind", ErrorKind)
def test_errors_are_retried_by_their_policy(kind: ErrorKind) -> None:
    again = plan_retry(error(kind), 1, RetrySettings(), repeatable=True)
    assert (again is not None) is (kind is ErrorKind.UNREACHABLE or kind in ELSEWHERE_ONLY)
    if again is not None:
        assert again.only_others is (kind in ELSEWHERE_ONLY)


@pytest.mark.parametrize("kind", ErrorKind)
def test_unrepeatable_call_is_retried_only_if_it_did_not_start(kind: ErrorKind) -> None:
    again = plan_retry(error(kind), 1, RetrySettings(), repeatable=False)
    assert (again is not None) is (kind in {ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED, ErrorKind.LOADING})


@pytest.mark.parametrize("kind", sorted(ELSEWHERE_ONLY))
def test_one_other_endpoint_is_tried_at_once(kind: ErrorKind) -> None:
    first = plan_retry(error(kind), 1, RetrySettings(attempts=10), repeatable=True)
    assert first is not None
    assert first.pause_s == 0
    assert plan_retry(error(kind), 2, RetrySettings(attempts=10), repeatable=True) is None


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_are_limited(attempts: int) -> None:
    settings = RetrySettings(attempts=attempts)
    for made in range(1, attempts):
        assert plan_retry(error(ErrorKind.UNREACHABLE), made, settings, repeatable=True) is not None
    assert plan_retry(error(ErrorKind.UNREACHABLE), attempts, settings, repeatable=True) is None


@given(
    attempts=st.integers(1, 10_000),
    base_s=st.floats(0, 10, allow_nan=False),
    max_s=st.floats(0, 60, allow_nan=False),
)
def test_pause_is_within_the_doubling_bound_and_the_limit(attempts: int, base_s: float, max_s: float) -> None:
    pause = pause_s(attempts, RetrySettings(base_s=base_s, max_s=max_s))
    assert 0 <= pause <= max_s
    assert pause <= base_s * 2.0 ** min(attempts - 1, 900)


def test_pause_is_drawn_from_the_whole_range() -> None:
    pauses = [pause_s(3, RetrySettings(base_s=0.1, max_s=1)) for _ in range(4000)]
    quarters = [sum(n * 0.1 <= pause < (n + 1) * 0.1 for pause in pauses) for n in range(4)]
    assert sum(quarters) == 4000
    assert all(850 < quarter < 1150 for quarter in quarters)


def test_retries_are_a_share_of_calls_over_time() -> None:
    budget = RetryBudget(RetrySettings(budget=0.1, reserve=3))
    taken = [budget.take() for _ in range(4)]
    assert taken == [True, True, True, False]
    retries = 0
    for _ in range(1000):
        budget.add_call()
        retries += budget.take()
    assert retries == 100


def test_budget_saves_no_more_than_its_reserve() -> None:
    budget = RetryBudget(RetrySettings(budget=1, reserve=2))
    for _ in range(50):
        budget.add_call()
    budget.give_back()
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_returned_retry_can_be_taken_once() -> None:
    budget = RetryBudget(RetrySettings(budget=0, reserve=1))
    assert budget.take()
    budget.give_back()
    assert [budget.take(), budget.take()] == [True, False]


def test_smaller_reserve_applies_at_once_and_larger_one_is_earned() -> None:
    budget = RetryBudget(RetrySettings(reserve=100))
    budget.reconfigure(RetrySettings(reserve=1))
    assert [budget.take(), budget.take()] == [True, False]
    budget.reconfigure(RetrySettings(reserve=100))
    assert not budget.take()


def test_without_a_budget_nothing_is_retried() -> None:
    budget = RetryBudget(RetrySettings(budget=0, reserve=0))
    budget.add_call()
    assert not budget.take()
