"""Routes of text-embeddings-inference for models that Torchless cannot serve.

They answer as text-embeddings-inference does if its model cannot do it: status 424, `error_type` Backend
(`Infer.embed_sparse` and `Infer.predict` in its core/src/infer.rs).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.apis.tei.errors import TEI, UnsupportedByModelError
from gateway.http.identity import require_scope
from gateway.settings import AccessScope
from torchless.contracts.errors import TorchlessError

NO_CLASSIFIER = "Model is not a classifier model; POST /rerank scores texts for a query"
"""The error of `/predict`."""
NO_SPLADE = "Model is not an embedding model with SPLADE pooling; POST /embed returns dense vectors"
"""The error of `/embed_sparse`."""


def unsupported_route(path: str, scope: AccessScope, message: str) -> Route:
    """A route that answers every POST request with the same error; it is not in the OpenAPI document.

    Args:
        path: The path.
        scope: The scope that a caller needs.
        message: The error, in the words of text-embeddings-inference.
    """

    async def answer(request: Request) -> Response:
        try:
            require_scope(request.scope, scope)
        except TorchlessError as error:
            return TEI.answer(error)
        return TEI.answer(UnsupportedByModelError(message))

    return Route(path, answer, methods=["POST"])
