"""Who is measured: the direct call, and services that the load generator reaches over gRPC or HTTP."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.inputs import Request
from benchmarks.load_generator.spans import Span
from benchmarks.plan import Case, Task
from benchmarks.systems.worker_process import WorkerProcess

DIRECT = "direct call"
GRPC = "embedding, gRPC"
JOINED = "gateway, base64"
NOT_JOINED = "gateway, base64, not joined"
RERANKING_GRPC = "reranking, gRPC"
_PATIENCE_S = 180.0


class Contender(Protocol):
    """Something that turns texts into vectors, or queries with documents into scores."""

    @property
    def name(self) -> str:
        """What tables call it, among those with its task."""

    @property
    def processes(self) -> frozenset[str]:
        """Names of the process trees that do its work; the load generator not among them."""

    def takes_part(self, case: Case) -> bool:
        """Whether it is measured under `case`, which is of its task."""

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """Its answer: vectors, shape (texts, dimensions), or raw scores, shape (documents, 1)."""

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """Puts it under load; one span a request, those around the window included."""

    def items_in_one(self, case: Case) -> int:
        """Texts or documents that one span stands for."""


@dataclass(frozen=True, slots=True)
class Direct:
    """sentence-transformers, without a service."""

    task: Task
    """What it is asked to do."""
    worker: WorkerProcess
    """Where `benchmarks.systems.direct` runs."""
    name: str = DIRECT
    processes: frozenset[str] = frozenset({DIRECT})

    def takes_part(self, case: Case) -> bool:
        """See `Contender`; always true, because the other contenders are compared with it."""
        return True

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """See `Contender`."""
        return _matrix(self.worker.ask(self._job("answer", requests), _PATIENCE_S), requests)

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contender`."""
        job = self._job("time", requests) | {"together": case.in_flight, "batch": case.direct_batch}
        return _spans(self.worker.ask({**job, "warm_up_s": warm_up_s, "seconds": seconds}, _PATIENCE_S))

    def items_in_one(self, case: Case) -> int:
        """See `Contender`."""
        return case.in_flight * case.items

    def _job(self, what: str, requests: Sequence[Request]) -> dict[str, Any]:
        return {"do": what, "task": self.task, "requests": [request.to_json() for request in requests]}


@dataclass(frozen=True, slots=True)
class Served:
    """A service, reached by the load generator."""

    name: str
    """See `Contender`."""
    processes: frozenset[str]
    """See `Contender`."""
    worker: WorkerProcess
    """Where `benchmarks.load_generator.load` runs."""
    target: dict[str, Any]
    """Where and how it is reached; see `benchmarks.load_generator.senders.open_sender`."""
    cases: Sequence[Case] | None = None
    """The cases it takes part in; None: all of its task."""

    def takes_part(self, case: Case) -> bool:
        """See `Contender`."""
        return self.cases is None or case in self.cases

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """See `Contender`."""
        return _matrix(self.worker.ask(self._job("answer", requests, in_flight=1), _PATIENCE_S), requests)

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contender`."""
        job = self._job("time", requests, case.in_flight) | {"warm_up_s": warm_up_s, "seconds": seconds}
        return _spans(self.worker.ask(job, _PATIENCE_S))

    def items_in_one(self, case: Case) -> int:
        """See `Contender`."""
        return case.items

    def _job(self, what: str, requests: Sequence[Request], in_flight: int) -> dict[str, Any]:
        asked = [request.to_json() for request in requests]
        return {"do": what, "target": self.target, "requests": asked, "in_flight": in_flight}


def _matrix(encoded: str, requests: Sequence[Request]) -> NDArray[np.float32]:
    rows = sum(len(request.texts) for request in requests)
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").reshape(rows, -1)


def _spans(answer: Any) -> list[Span]:
    return [(sent, done) for sent, done in answer]
