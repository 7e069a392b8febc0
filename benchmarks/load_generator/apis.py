"""The HTTP APIs under load: their bodies, and how their answers are read. Requests ask for raw scores."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.inputs import Request


@dataclass(frozen=True, slots=True)
class API:
    """One API."""

    body: Callable[[Request, str], dict[str, Any]]
    """Makes the body of a request to a model."""
    read: Callable[[Any], NDArray[np.float32]]
    """Reads a response: vectors, shape (texts, dimensions), or scores, shape (documents, 1), in the order of the
    request."""


def api_named(name: str) -> API:
    """The API `base64` or `float` (OpenAI with that encoding), `documents` (Cohere, infinity) or `texts` (TEI)."""
    return _APIS[name]


def _openai(encoding: str) -> API:
    def body(request: Request, model: str) -> dict[str, Any]:
        return {"input": request.texts, "model": model, "encoding_format": encoding}

    return API(body, lambda answer: np.stack([_vector(item["embedding"]) for item in answer["data"]]))


def _documents_body(request: Request, model: str) -> dict[str, Any]:
    # Cohere's API has neither name, but its route of our gateway accepts both.
    form = {"raw_scores": True, "return_documents": False}
    return {"query": request.query, "documents": request.texts, "model": model, **form}


def _texts_body(request: Request, model: str) -> dict[str, Any]:
    return {"query": request.query, "texts": request.texts, "raw_scores": True, "truncate": True}


def _vector(embedding: Any) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def _in_order(results: list[dict[str, Any]], score: str) -> NDArray[np.float32]:
    by_index = sorted(results, key=lambda result: int(result["index"]))
    return np.array([[result[score]] for result in by_index], dtype=np.float32)


_APIS = {
    "base64": _openai("base64"),
    "float": _openai("float"),
    "documents": API(_documents_body, lambda answer: _in_order(answer["results"], "relevance_score")),
    "texts": API(_texts_body, lambda answer: _in_order(answer, "score")),
}
