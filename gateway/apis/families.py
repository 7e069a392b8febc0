"""Which API family answers a path that no route has."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.apis.cohere.errors import COHERE
from gateway.apis.gpu.errors import GPU
from gateway.apis.openai.errors import OPENAI
from gateway.apis.rerank.errors import RERANK_UNDECIDED
from gateway.apis.tei.errors import TEI
from gateway.apis.vllm.errors import VLLM
from gateway.http.error_family import ErrorFamily

_PREFIXES: Mapping[str, ErrorFamily] = {
    "/v1": OPENAI,
    "/embeddings": OPENAI,
    "/models": OPENAI,
    "/v2": COHERE,
    "/v1/embed": COHERE,
    "/v1/rerank": COHERE,
    "/rerank": RERANK_UNDECIDED,
    "/score": VLLM,
    "/v1/score": VLLM,
    "/v1/gpu": GPU,
}
"""By the parts of a path that come first. The longest prefix counts; a path without one is TEI's."""


def family_of(path: str) -> ErrorFamily:
    """The family whose errors a path answers when no route of its own does."""
    while path:
        if (family := _PREFIXES.get(path)) is not None:
            return family
        path = path.rpartition("/")[0]
    return TEI
