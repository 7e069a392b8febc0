"""The deadline of a request."""

from __future__ import annotations

import math

import pytest

from torchless.clients.deadline import Deadline


def test_a_deadline_knows_what_is_left() -> None:
    assert Deadline.after(60).remaining_s == pytest.approx(60, abs=5)
    assert Deadline.after(60).timeout_s == pytest.approx(60, abs=5)
    assert not Deadline.after(60).expired


def test_a_deadline_in_the_past_has_expired_and_leaves_no_time() -> None:
    past = Deadline.after(-1)
    assert past.expired
    assert past.remaining_s < 0
    assert past.timeout_s == 0


def test_never_leaves_time_without_end() -> None:
    assert not Deadline.NEVER.expired
    assert (Deadline.NEVER.remaining_s, Deadline.NEVER.timeout_s) == (math.inf, None)


def test_the_earlier_of_two_deadlines_is_chosen() -> None:
    soon, late = Deadline.after(1), Deadline.after(2)
    assert soon.earlier_of(late) is soon
    assert late.earlier_of(soon) is soon
    assert Deadline.NEVER.earlier_of(late) is late


@pytest.mark.parametrize("seconds", [1e10, 1e308, math.inf])
def test_more_than_a_century_is_no_limit(seconds: float) -> None:
    assert Deadline.after(seconds).timeout_s is None


def test_a_deadline_is_a_number() -> None:
    with pytest.raises(ValueError, match="not NaN"):
        Deadline.after(math.nan)
