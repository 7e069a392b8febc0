"""One case of the suite: what it sends, what it measures, and its row in the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.resilience.outcomes import Outcome, Row, Tally


@dataclass
class Case:
    """Collects the requests and figures of one test."""

    name: str
    """Its number and name, as the table has it."""
    tally: Tally = field(default_factory=Tally)
    """Every request that was sent for it."""
    figures: list[str] = field(default_factory=list)
    """What else was measured, in the order in which it was."""

    def figure(self, text: str) -> None:
        """Adds a figure to the row."""
        self.figures.append(text)

    def none(self, *outcomes: Outcome) -> None:
        """Asserts that requests were sent and that none ended like this."""
        assert self.tally.sent > 0, "no request was sent"
        found = self.tally.reasons(*outcomes)
        assert not found, f"of {self.tally.sent} requests: {dict(found)}"

    def row(self, *, passed: bool) -> Row:
        """The row, from what was counted."""
        return Row(
            case=self.name,
            counts=self.tally.counts(),
            p50_s=self.tally.seconds(0.5),
            p99_s=self.tally.seconds(0.99),
            figures="; ".join(self.figures),
            passed=passed,
        )
