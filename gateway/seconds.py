"""Reads a number of seconds that a header or a query says."""

from __future__ import annotations

import math

from gateway.faults import malformed


def read_seconds(name: str, given: str, *, least: float = -math.inf, finite: bool = False) -> float:
    """The seconds that `given` says.

    Args:
        name: What the caller calls it.
        given: The number as text, in ASCII and without underscores.
        least: The smallest that is taken.
        finite: Whether infinity is refused.

    Raises:
        MalformedRequestError: It is no number, or not one that is taken.
    """
    seconds = _number(given)
    if not seconds >= least or (finite and math.isinf(seconds)):
        wanted = "is a number of seconds" + ("" if math.isinf(least) else f" from {least}")
        raise malformed(name, f"{wanted}, such as 2.5")
    return seconds


def _number(given: str) -> float:
    """NaN where it is none. Python reads 1_0 as 10, and digits of every script; a slip must not be taken for those."""
    if "_" in given or not given.isascii():
        return math.nan
    try:
        return float(given)
    except ValueError:
        return math.nan
