"""What is measured: cases, each with the direct call that it is compared with, and how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Part(StrEnum):
    """What can be measured alone."""

    EMBEDDING = "embedding"
    RERANKING = "reranking"
    LAYER = "layer"
    """The client layer, over a bare gRPC stub."""


class Task(StrEnum):
    """What contenders are given to do."""

    EMBEDDING = "embedding"
    """Texts to vectors."""
    RERANKING = "reranking"
    """Documents of a query to scores, by the default model: late interaction joined with the embedding score."""
    CROSS_ENCODER = "cross-encoder"
    """The same by a cross-encoder."""

    @property
    def part(self) -> Part:
        """What it belongs to; also the name of the service that does it."""
        return Part.EMBEDDING if self is Task.EMBEDDING else Part.RERANKING

    @property
    def unit(self) -> str:
        """What throughput counts."""
        return "texts" if self is Task.EMBEDDING else "pairs"


class Length(StrEnum):
    """How long a passage is; the tokens are those of the default model, special tokens included."""

    SHORT = "short"
    """10 to 30 tokens, 19 on average."""
    LONG = "long"
    """About 200 tokens, all nearly the same."""


_LARGEST_DIRECT_BATCH = {Task.EMBEDDING: 64, Task.RERANKING: 32, Task.CROSS_ENCODER: 32}
"""To embed, as many texts as our service puts into one pass. To rerank, what sentence-transformers comes with: passages
differ in length, and in batches of 64 of them half of what the direct call computes would be padding."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load. It is compared with one direct call for all that is in flight together."""

    task: Task
    """What is to be done."""
    load: str
    """How much at once, in words."""
    in_flight: int
    """Requests in flight at once; each next one is sent when one is answered."""
    items: int = 1
    """Texts in one request, or documents of its query."""
    length: Length = Length.SHORT
    """Length of texts to embed."""

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.task}, {self.load}"

    @property
    def direct_batch(self) -> int:
        """Batch size of the direct call."""
        return min(self.in_flight * self.items, _LARGEST_DIRECT_BATCH[self.task])


SHORT = tuple(Case(Task.EMBEDDING, f"{count} in flight", in_flight=count) for count in (1, 8, 32, 64))
"""One short text a request."""
OTHER = (
    Case(Task.EMBEDDING, "long, 8 in flight", in_flight=8, length=Length.LONG),
    Case(Task.EMBEDDING, "256 in one", in_flight=1, items=256),
)
"""About 200 tokens a text; and bulk: 256 short texts a request."""
RERANKING = tuple(Case(Task.RERANKING, f"{count} in flight", in_flight=count, items=10) for count in (1, 8, 32))
"""A query with 10 documents a request: what a search puts in order."""
RERANKING_OTHER = (
    Case(Task.RERANKING, "100 in one", in_flight=1, items=100),
    Case(Task.RERANKING, "one document, 32 in flight", in_flight=32),
)
"""A long list for one query; and single pairs, which only joined fill a pass."""
CROSS_ENCODER = tuple(Case(Task.CROSS_ENCODER, f"{count} in flight", in_flight=count, items=10) for count in (8, 32))
"""As `RERANKING`."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How much of the client layer is measured: many short windows, since a call takes less than a millisecond."""

    rounds: int
    """How often every way to call is measured under every load."""
    seconds: float
    """Length of a window."""
    warm_up_s: float
    """Load before the window opens, at least."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    cases: tuple[Case, ...]
    """The loads, in their order within a round."""
    rounds: int
    """How often every contender is measured under every load."""
    seconds: float
    """Length of a window."""
    warm_up_s: float
    """Load before the window opens, at least; it lasts until each request in flight at its start is answered."""
    starts: int
    """How often the gateway is started to time it."""
    peer: bool
    """Whether infinity takes part."""
    layer: LayerPlan | None = None
    """The client layer; None: it is left out."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is to be done, in order."""
        return tuple(dict.fromkeys(case.task for case in self.cases))

    def only(self, part: Part) -> Plan:
        """What of it measures one part."""
        cases = tuple(case for case in self.cases if case.task.part is part)
        return replace(self, cases=cases, layer=self.layer if part is Part.LAYER else None)

    def sized(self, rounds: int | None, seconds: float | None) -> Plan:
        """The same with another number of rounds and another length of windows; None: the plan's own."""
        layer = self.layer and replace(
            self.layer, rounds=rounds or self.layer.rounds, seconds=seconds or self.layer.seconds
        )
        return replace(self, rounds=rounds or self.rounds, seconds=seconds or self.seconds, layer=layer)


FULL = Plan(
    cases=SHORT + OTHER + RERANKING + RERANKING_OTHER + CROSS_ENCODER,
    rounds=3,
    seconds=2.0,
    warm_up_s=0.6,
    starts=5,
    peer=True,
    layer=LayerPlan(rounds=13, seconds=0.12, warm_up_s=0.02),
)
"""Under 14 minutes on two cores."""
QUICK = Plan(
    cases=SHORT + RERANKING + CROSS_ENCODER[:1],
    rounds=1,
    seconds=1.0,
    warm_up_s=0.3,
    starts=3,
    peer=True,
    layer=LayerPlan(rounds=3, seconds=0.1, warm_up_s=0.02),
)
"""Under three minutes: shows that everything works, and roughly how fast."""
