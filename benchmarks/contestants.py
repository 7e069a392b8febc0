"""Who is measured: the direct call, and services that the load generator reaches over gRPC or HTTP."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import Case
from benchmarks.spans import Span
from benchmarks.station import Station

DIRECT = "direct call"
GRPC = "embedding, gRPC"
_PATIENCE_S = 120.0


class Contestant(Protocol):
    """Something that turns texts into vectors."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def processes(self) -> frozenset[str]:
        """Names of the process trees that do its work; the load generator not among them."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Its answer for `texts`: shape (texts, dimensions)."""

    def time(self, texts: Sequence[str], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """Puts it under load; one span a request, those around the window included."""

    def texts_in_one(self, case: Case) -> int:
        """Texts that one span stands for."""


@dataclass(frozen=True, slots=True)
class Direct:
    """`SentenceTransformer.encode`."""

    station: Station
    """Where `benchmarks.direct` runs."""
    name: str = DIRECT
    processes: frozenset[str] = frozenset({DIRECT})

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Contestant`."""
        return _matrix(self.station.ask({"do": "vectors", "texts": list(texts)}, _PATIENCE_S), len(texts))

    def time(self, texts: Sequence[str], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contestant`."""
        job = {"do": "time", "texts": list(texts), "texts_per_request": case.direct_texts, "batch": case.direct_batch}
        return _spans(self.station.ask({**job, "warm_up_s": warm_up_s, "seconds": seconds}, _PATIENCE_S))

    def texts_in_one(self, case: Case) -> int:
        """See `Contestant`."""
        return case.direct_texts


@dataclass(frozen=True, slots=True)
class Served:
    """A service, reached by the load generator."""

    name: str
    """See `Contestant`."""
    processes: frozenset[str]
    """See `Contestant`."""
    station: Station
    """Where `benchmarks.load` runs."""
    target: dict[str, Any]
    """Where and how it is reached; see `benchmarks.load`."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Contestant`."""
        job = {"do": "vectors", "target": self.target, "texts": list(texts), "in_flight": 1}
        return _matrix(self.station.ask(job, _PATIENCE_S), len(texts))

    def time(self, texts: Sequence[str], case: Case, warm_up_s: float, seconds: float) -> list[Span]:
        """See `Contestant`."""
        job = {"do": "time", "target": self.target, "texts": list(texts), "texts_per_request": case.texts_per_request}
        job |= {"in_flight": case.in_flight, "warm_up_s": warm_up_s, "seconds": seconds}
        return _spans(self.station.ask(job, _PATIENCE_S))

    def texts_in_one(self, case: Case) -> int:
        """See `Contestant`."""
        return case.texts_per_request


def over_grpc(port: int) -> dict[str, Any]:
    """Target: the embedding service, by our client."""
    return {"protocol": "grpc", "port": port}


def over_http(port: int, path: str, encoding: str, model: str) -> dict[str, Any]:
    """Target: OpenAI's embeddings API at `path`; `encoding` is `float` or `base64`."""
    return {"protocol": "http", "port": port, "path": path, "encoding": encoding, "model": model}


def _matrix(encoded: str, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(encoded), dtype="<f4").reshape(rows, -1)


def _spans(answer: Any) -> list[Span]:
    return [(sent, done) for sent, done in answer]
