"""The contenders: the direct call, and services under load over gRPC or HTTP."""

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
_TIMEOUT_S = 180.0


class Contender(Protocol):
    """Computes vectors of texts, or scores of documents."""

    @property
    def name(self) -> str:
        """Its name in tables, unique per task."""

    @property
    def processes(self) -> frozenset[str]:
        """Names of the process trees that do its work, without the load generator."""

    def takes_part(self, case: Case) -> bool:
        """Whether it is measured under a case of its task."""

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """Answers requests: vectors, shape (texts, dimensions), or raw scores, shape (documents, 1)."""

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """Puts it under load; returns a span per request, including those around the window."""

    def items_in_one(self, case: Case) -> int:
        """Texts or documents per span."""


@dataclass(frozen=True, slots=True)
class Direct:
    """sentence-transformers, without a service."""

    task: Task
    """The task."""
    worker: WorkerProcess
    """The process of `benchmarks.systems.direct`."""
    name: str = DIRECT
    processes: frozenset[str] = frozenset({DIRECT})

    def takes_part(self, case: Case) -> bool:
        """See `Contender`; always true, because the other contenders are compared with it."""
        return True

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """See `Contender`."""
        return _matrix(self.worker.ask(self._job("answer", requests), _TIMEOUT_S), requests)

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contender`."""
        job = self._job("time", requests) | {"together": case.in_flight, "batch": case.direct_batch}
        return _spans(self.worker.ask({**job, "warm_up_s": warm_up_s, "seconds": seconds}, _TIMEOUT_S))

    def items_in_one(self, case: Case) -> int:
        """See `Contender`."""
        return case.in_flight * case.items

    def _job(self, what: str, requests: Sequence[Request]) -> dict[str, Any]:
        return {"do": what, "task": self.task, "requests": [request.to_json() for request in requests]}


@dataclass(frozen=True, slots=True)
class Served:
    """A service under load of the load generator."""

    name: str
    """See `Contender`."""
    processes: frozenset[str]
    """See `Contender`."""
    worker: WorkerProcess
    """The process of `benchmarks.load_generator.load`."""
    target: dict[str, Any]
    """How to reach it; see `benchmarks.load_generator.senders.open_sender`."""
    cases: Sequence[Case] | None = None
    """The cases that it takes part in; None: all of its task."""

    def takes_part(self, case: Case) -> bool:
        """See `Contender`."""
        return self.cases is None or case in self.cases

    def answer(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """See `Contender`."""
        return _matrix(self.worker.ask(self._job("answer", requests, in_flight=1), _TIMEOUT_S), requests)

    def time(self, requests: Sequence[Request], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contender`."""
        job = self._job("time", requests, case.in_flight) | {"warm_up_s": warm_up_s, "seconds": seconds}
        return _spans(self.worker.ask(job, _TIMEOUT_S))

    def items_in_one(self, case: Case) -> int:
        """See `Contender`."""
        return case.items

    def _job(self, what: str, requests: Sequence[Request], in_flight: int) -> dict[str, Any]:
        encoded = [request.to_json() for request in requests]
        return {"do": what, "target": self.target, "requests": encoded, "in_flight": in_flight}


def _matrix(encoded: str, requests: Sequence[Request]) -> NDArray[np.float32]:
    rows = sum(len(request.texts) for request in requests)
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").reshape(rows, -1)


def _spans(answer: Any) -> list[Span]:
    return [(sent, done) for sent, done in answer]
