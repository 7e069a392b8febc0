"""The table of API families. Each declares its routes, and the paths whose errors it answers, in its `routes.py`."""

from __future__ import annotations

from gateway.apis.cohere.routes import routes as cohere
from gateway.apis.gpu.routes import routes as gpu
from gateway.apis.openai.routes import routes as openai
from gateway.apis.operation.routes import routes as operation
from gateway.apis.rerank.routes import routes as rerank
from gateway.apis.tei.reranking import routes as tei_reranking
from gateway.apis.tei.routes import routes as tei
from gateway.apis.vllm.routes import routes as vllm
from gateway.http.error_family import ErrorFamily

FAMILIES = (openai, tei, tei_reranking, cohere, rerank, vllm, gpu, operation)
"""The families, in the order in which their routes are matched."""
_BY_PREFIX = {prefix: routes.family for routes in FAMILIES for prefix in routes.prefixes}


def family_of(path: str) -> ErrorFamily:
    """The family that answers a path without a route: that of the longest prefix, else text-embeddings-inference."""
    while path:
        if (family := _BY_PREFIX.get(path)) is not None:
            return family
        path = path.rpartition("/")[0]
    return tei.family
