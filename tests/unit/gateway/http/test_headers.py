"""Seconds in headers and query parameters."""

from __future__ import annotations

import math

import pytest

from gateway.http.exceptions import MalformedRequestError
from gateway.http.headers import read_seconds


@pytest.mark.parametrize(("given", "seconds"), [("10", 10), ("2.5", 2.5), (" 1e1 ", 10), ("-3", -3), ("inf", math.inf)])
def test_numbers_of_seconds_are_read(given: str, seconds: float) -> None:
    assert read_seconds("wait_s", given) == seconds


@pytest.mark.parametrize("given", ["1_0", "1_0.5", "\u0661\u0660", "nan", "", "ten", "0x10", "1,5"])
def test_values_that_are_not_numbers_are_refused(given: str) -> None:
    with pytest.raises(MalformedRequestError, match="wait_s: must be a number of seconds, such as") as raised:
        read_seconds("wait_s", given)
    assert [violation.field for violation in raised.value.violations] == ["wait_s"]


def test_numbers_out_of_range_are_refused() -> None:
    assert read_seconds("wait_s", "0.5", least=0.5, finite=True) == 0.5
    with pytest.raises(MalformedRequestError, match=r"from 0\.5, such as"):
        read_seconds("wait_s", "0.49", least=0.5)
    with pytest.raises(MalformedRequestError):
        read_seconds("wait_s", "inf", finite=True)
