"""The facts about one request that use cases need, and how its answer comes about; knows no header."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.timings import NO_TIMINGS, Timings
from torchless.contracts.errors import ErrorKind, TorchlessError

T = TypeVar("T")
_RETRY_AFTER_S = 1.0


class Provenance:
    """How the answer to one request came about, for its headers and its line in the log."""

    def __init__(self) -> None:
        self.hits = 0
        """Inputs whose vectors came from the cache."""
        self.misses = 0
        """Inputs whose vectors did not, while the cache is on."""
        self.truncated = 0
        """Texts and other inputs of which a model read only a part."""
        self.revision = ""
        """Fingerprint of what decided the vectors or scores; empty: there are none."""
        self.degraded: list[str] = []
        """Unavailable capabilities that the answer does without, in the order in which they were found."""
        self.model = ""
        """The model's id: the requested one until the service has answered."""
        self.items = 0
        """Texts, token sequences or documents of the request."""
        self.tokens = 0
        """Tokens that the model read."""
        self.timings = NO_TIMINGS
        """Times inside the service; zero if the cache had everything."""
        self.shared_with: tuple[str, ...] = ()
        """Ids of the requests whose calls computed inputs of this one too."""

    @property
    def cache_result(self) -> str:
        """`hit`, `partial` or `miss`; empty: no input went through the cache."""
        if not (self.hits or self.misses):
            return ""
        return "miss" if not self.hits else "partial" if self.misses else "hit"

    def requested(self, model: str, items: int) -> None:
        """Records what the request wants."""
        self.model = model
        self.items += items

    def answered(self, model: str, tokens: int, timings: Timings) -> None:
        """Records what the service answered."""
        self.model = model
        self.tokens += tokens
        self.timings = timings

    def cached(self, hits: int, misses: int) -> None:
        """Counts inputs that were in the cache, and inputs that were not."""
        self.hits += hits
        self.misses += misses

    def mark_degraded(self, capability: str) -> None:
        """Records that the answer does without `capability`."""
        if capability not in self.degraded:
            self.degraded.append(capability)

    async def or_degrade(self, capability: str, work: Awaitable[T]) -> T | None:
        """The result of `work`; None, recorded as degraded, if `capability` is unavailable.

        Raises:
            TorchlessError: An error that does not degrade, such as a fault of the caller.
        """
        try:
            return await work
        except TorchlessError as error:
            if not error.kind.policy.degrades:
                raise
            self.mark_degraded(capability)
            return None

    def error(self) -> TorchlessError:
        """The error to raise when there is nothing to answer without the unavailable capabilities."""
        names = sorted(self.degraded)
        what = f"the {names[0]} service is" if len(names) == 1 else f"the {' and '.join(names)} services are"
        return TorchlessError(ErrorKind.UNREACHABLE, f"{what} unavailable; retry shortly", retry_after_s=_RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Facts about one request, taken when it arrives."""

    request_id: str
    """Its id."""
    traceparent: str
    """W3C trace context; empty: none."""
    deadline: Deadline
    """Until when its caller waits."""
    tenant: str = ""
    """Whose data it works with; empty: no tenant in particular."""
    provenance: Provenance = field(default_factory=Provenance)
    """How its answer comes about."""

    def for_call(self) -> CallContext:
        """The context of a call that is made for this request.

        Raises:
            TorchlessError: DEADLINE, once the deadline has passed.
        """
        if self.deadline.expired:
            raise TorchlessError(ErrorKind.DEADLINE, "the request's deadline passed before the service was called")
        return CallContext(self.request_id, self.tenant, self.traceparent, self.deadline)
