"""The in-process reranking service with the timings and odd scores that tests of the gateway need."""

from __future__ import annotations

from torchless.clients.testing import RERANKING_MODEL, RerankingService
from torchless.clients.timings import Timings


def tokens_of(query: str, document: str) -> int:
    """A token per word and three special ones, at most as many as the model reads."""
    return min(RERANKING_MODEL.max_tokens, len(query.split()) + len(document.split()) + 3)


class RerankingServer(RerankingService):
    """Set `broken_score` to return it for every document."""

    def reset(self) -> None:
        super().reset()
        self.timings = Timings(queue_ms=1.4, tokenization_ms=2.0, inference_ms=3.6, total_ms=7.0)
        self.broken_score: float | None = None

    def score(self, query: str, document: str) -> float:
        return super().score(query, document) if self.broken_score is None else self.broken_score
