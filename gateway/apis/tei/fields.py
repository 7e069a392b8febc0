"""The request fields of text-embeddings-inference."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields

_SOURCE = "router/src/http/types.rs"
_TEXT = "How do swifts sleep? They glide."
_LONG = " ".join(["word"] * 100)
_CUT = {"truncate": False, "truncation_direction": "Left"}
_EMBED = {"inputs": "other", **_CUT, "prompt_name": "query"}
_RERANK = {"query": "swifts sleep", "texts": ["swifts", _LONG]}
_COMPARED = {"source_sentence": _TEXT, "sentences": ["swifts", _LONG]}
FIELDS = (
    KnownFields(
        ("/embed", "/", "/invocations"),
        "TEI",
        f"{_SOURCE}, EmbedRequest",
        {"inputs": [_TEXT, _LONG]},
        obeyed={**_EMBED, "normalize": False, "dimensions": 8},
    ),
    KnownFields(("/embed_all",), "TEI", f"{_SOURCE}, EmbedAllRequest", {"inputs": [_TEXT, _LONG]}, obeyed=_EMBED),
    KnownFields(
        ("/similarity", "/", "/invocations"),
        "TEI",
        f"{_SOURCE}, SimilarityRequest",
        {"inputs": _COMPARED},
        obeyed={
            "inputs": {**_COMPARED, "sentences": ["bread"]},
            "parameters": {"truncate": True, "truncation_direction": "Left", "prompt_name": "query"},
        },
    ),
    KnownFields(
        ("/tokenize",),
        "TEI",
        f"{_SOURCE}, TokenizeRequest",
        {"inputs": _TEXT},
        obeyed={"inputs": "other", "add_special_tokens": False, "prompt_name": "query"},
    ),
    KnownFields(
        ("/decode",),
        "TEI",
        f"{_SOURCE}, DecodeRequest",
        {"ids": [3, 4]},
        obeyed={"ids": [5], "skip_special_tokens": False},
    ),
    KnownFields(
        ("/rerank", "/reranker", "/reranker/rerank", "/reranker/invocations"),
        "TEI",
        f"{_SOURCE}, RerankRequest",
        _RERANK,
        obeyed={"query": "other", "texts": ["other"], **_CUT, "raw_scores": True, "return_text": True},
    ),
)
"""By route."""
