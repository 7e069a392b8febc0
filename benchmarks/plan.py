"""What is measured: cases, each with the direct call that it is compared with, and how long."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.texts import Length


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    name: str
    """What tables call it."""
    length: Length
    """Length of the texts."""
    in_flight: int
    """Requests in flight at once; each next one is sent when one is answered."""
    texts_per_request: int = 1
    """Texts in one request."""
    direct_texts: int = 1
    """Texts in one direct call that this load is compared with."""
    direct_batch: int = 1
    """Batch size of that call."""


SHORT = tuple(
    Case(f"{count} in flight", Length.SHORT, in_flight=count, direct_texts=count, direct_batch=count)
    for count in (1, 8, 32, 64)
)
"""One short text a request."""
OTHER = (
    Case("long, 8 in flight", Length.LONG, in_flight=8, direct_texts=8, direct_batch=8),
    Case("256 in one", Length.SHORT, in_flight=1, texts_per_request=256, direct_texts=256, direct_batch=64),
)
"""About 200 tokens a text; and bulk: 256 short texts a request."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    cases: tuple[Case, ...]
    """The loads, in their order within a round."""
    rounds: int
    """How often every contestant is measured under every load."""
    seconds: float
    """Length of a window."""
    warm_up_s: float
    """Load before the window opens."""
    starts: int
    """How often the gateway is started to time it."""
    peer: bool
    """Whether infinity takes part."""


FULL = Plan(cases=SHORT + OTHER, rounds=5, seconds=4.0, warm_up_s=0.6, starts=7, peer=True)
"""A quarter of an hour on two cores."""
QUICK = Plan(cases=SHORT, rounds=1, seconds=1.0, warm_up_s=0.3, starts=3, peer=True)
"""Under two minutes: shows that everything works, and roughly how fast."""
POOL = 2048
"""Texts that requests are drawn from, in order and again from the start."""
