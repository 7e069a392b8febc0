"""The one deadline of a request: made once, where the request arrives, and carried along with it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

_CENTURY_S = 100 * 366 * 24 * 3600.0
"""gRPC counts nanoseconds in 64 bits: a timeout of three centuries would have passed at once."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment until which a caller waits."""

    expires_at: float
    """Seconds on the monotonic clock (`time.monotonic`); infinity: never."""

    NEVER: ClassVar[Deadline]
    """The caller waits without end."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline `seconds` from now.

        Raises:
            ValueError: It is not a number.
        """
        if math.isnan(seconds):
            raise ValueError("a deadline must be a number of seconds, not NaN")
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds that are left; negative once it has passed, infinite when there is none."""
        return self.expires_at - time.monotonic()

    @property
    def timeout_s(self) -> float | None:
        """Seconds that are left, as timeouts take them: at least 0, and None for no limit or more than a century."""
        left_s = self.remaining_s
        return None if left_s > _CENTURY_S else max(0.0, left_s)

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self.remaining_s <= 0

    def earlier_of(self, other: Deadline) -> Deadline:
        """The one of the two that passes first."""
        return self if self.expires_at <= other.expires_at else other


Deadline.NEVER = Deadline(math.inf)
