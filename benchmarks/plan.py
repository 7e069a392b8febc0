"""The plan of a run: the cases, each with its direct call, and their duration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Part(StrEnum):
    """A part of the benchmark that can run separately."""

    EMBEDDING = "embedding"
    RERANKING = "reranking"
    LAYER = "layer"
    """The client layer, compared with a bare gRPC stub."""


class Task(StrEnum):
    """The task of a case."""

    EMBEDDING = "embedding"
    """Texts to vectors."""
    RERANKING = "reranking"
    """A query and documents to scores, by the default model: late interaction and the embedding score."""
    CROSS_ENCODER = "cross-encoder"
    """The same with a cross-encoder."""

    @property
    def part(self) -> Part:
        """The part it belongs to; also the name of the service."""
        return Part.EMBEDDING if self is Task.EMBEDDING else Part.RERANKING

    @property
    def unit(self) -> str:
        """The unit of throughput."""
        return "texts" if self is Task.EMBEDDING else "pairs"


class Length(StrEnum):
    """Length of a passage, in tokens of the default model with special tokens."""

    SHORT = "short"
    """10 to 30 tokens, 19 on average."""
    LONG = "long"
    """About 200 tokens, with little variation."""


_LARGEST_DIRECT_BATCH = {Task.EMBEDDING: 64, Task.RERANKING: 32, Task.CROSS_ENCODER: 32}
"""Embedding: as many texts as the service puts into one batch. Reranking: the default of sentence-transformers;
passages differ in length, and with a batch size of 64 half of the direct call would be padding."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load, compared with one direct call for all requests in flight."""

    task: Task
    """The task."""
    load: str
    """A description of the load."""
    in_flight: int
    """Requests in flight; when one is answered, the next is sent."""
    items: int = 1
    """Texts per request, or documents per query."""
    length: Length = Length.SHORT
    """Length of the texts to embed."""

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.task}, {self.load}"

    @property
    def direct_batch(self) -> int:
        """Batch size of the direct call."""
        return min(self.in_flight * self.items, _LARGEST_DIRECT_BATCH[self.task])


SHORT = tuple(Case(Task.EMBEDDING, f"{count} in flight", in_flight=count) for count in (1, 8, 32, 64))
"""One short text for each request."""
OTHER = (
    Case(Task.EMBEDDING, "long, 8 in flight", in_flight=8, length=Length.LONG),
    Case(Task.EMBEDDING, "256 in one", in_flight=1, items=256),
)
"""Texts of about 200 tokens; and bulk, 256 short texts in a request."""
RERANKING = tuple(Case(Task.RERANKING, f"{count} in flight", in_flight=count, items=10) for count in (1, 8, 32))
"""A query with 10 documents in a request, as in a search."""
RERANKING_OTHER = (
    Case(Task.RERANKING, "100 in one", in_flight=1, items=100),
    Case(Task.RERANKING, "one document, 32 in flight", in_flight=32),
)
"""A long list for one query; and single pairs, which fill a batch only when they are joined."""
CROSS_ENCODER = tuple(Case(Task.CROSS_ENCODER, f"{count} in flight", in_flight=count, items=10) for count in (8, 32))
"""As `RERANKING`."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How much of the client layer is measured: many short windows, because a call takes less than a millisecond."""

    rounds: int
    """Number of times that each variant is measured under each load."""
    seconds: float
    """Length of a window, in seconds."""
    warm_up_s: float
    """Shortest load before the window opens, in seconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured in a run."""

    cases: tuple[Case, ...]
    """The cases, in their order within a round."""
    rounds: int
    """Number of times that each contender is measured under each load."""
    seconds: float
    """Length of a window, in seconds."""
    warm_up_s: float
    """Shortest load before the window opens, in seconds; it lasts until the first requests are answered."""
    starts: int
    """Number of timed starts of the gateway."""
    peer: bool
    """Whether infinity is measured too."""
    layer: LayerPlan | None = None
    """The client layer; None: not measured."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in order."""
        return tuple(dict.fromkeys(case.task for case in self.cases))

    def only(self, part: Part) -> Plan:
        """The plan restricted to one part."""
        cases = tuple(case for case in self.cases if case.task.part is part)
        return replace(self, cases=cases, layer=self.layer if part is Part.LAYER else None)

    def sized(self, rounds: int | None, seconds: float | None) -> Plan:
        """The plan with another number of rounds and another length of windows; None: unchanged."""
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
"""Under three minutes: shows that everything works, and its rough speed."""
