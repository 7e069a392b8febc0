"""The outcome of each request of a case, and the rows that report it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one request."""

    ANSWERED = "answered"
    """With the vectors of its texts."""
    DEGRADED = "degraded"
    """With the vectors of its texts, by something that stands in for what is out, and saying so."""
    REFUSED = "refused"
    """429, or where the case expects it 503 with Retry-After; nothing was begun."""
    FAILED = "failed"
    """With any other error."""
    LOST = "lost"
    """With nothing at all, or with something that is not the answer to it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request."""

    sent_at: float
    """When it was sent, as `time.monotonic()`."""
    seconds: float
    """From then to its outcome."""
    outcome: Outcome
    reason: str = ""
    """For people: the status and code, or how it was lost."""
    cached: bool = False
    """Whether the answer says that it came out of the cache."""


@dataclass
class Tally:
    """Every request of a case."""

    records: list[Record] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many there were."""
        return len(self.records)

    def count(self, outcome: Outcome) -> int:
        """How many ended like this."""
        return sum(record.outcome is outcome for record in self.records)

    def counts(self) -> dict[Outcome, int]:
        """How many ended in each way."""
        found = Counter(record.outcome for record in self.records)
        return {outcome: found[outcome] for outcome in Outcome}

    def reasons(self, *outcomes: Outcome) -> Counter[str]:
        """Why requests ended like this."""
        return Counter(record.reason for record in self.records if record.outcome in outcomes)

    def where(self, wanted: Callable[[Record], bool]) -> Tally:
        """Only those requests."""
        return Tally([record for record in self.records if wanted(record)])

    def between(self, start: float, end: float = math.inf) -> Tally:
        """Only requests that were sent in this time, as `time.monotonic()`."""
        return self.where(lambda record: start <= record.sent_at < end)

    def seconds(self, share: float, *outcomes: Outcome) -> float:
        """Quantile of the time to the outcome, in seconds; of answers unless other outcomes are given. NaN of none."""
        wanted = outcomes or (Outcome.ANSWERED, Outcome.DEGRADED)
        return quantile((record.seconds for record in self.records if record.outcome in wanted), share)


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed (nearest rank); NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one case."""

    case: str
    """Its number and name."""
    counts: Mapping[Outcome, int]
    """How many requests ended in each way."""
    p50_s: float
    """Median time of answers, in seconds."""
    p99_s: float
    """99th percentile of it, in seconds."""
    figures: str
    """What else was measured."""
    passed: bool
    """Whether the case kept what it promises."""

    @property
    def sent(self) -> int:
        """Requests sent: every one has one outcome."""
        return sum(self.counts.values())
