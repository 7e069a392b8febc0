"""The request fields of Cohere's embedding routes; those of its rerank routes are with `gateway.apis.rerank`."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields

_BASE = {"texts": ["How do swifts sleep?", " ".join(["word"] * 100)]}
_MIXED = {"inputs": [{"content": [{"type": "text", "text": "How do swifts sleep?"}]}]}
_COMMON = {
    "texts": ["other"],
    "model": "no/such",
    "input_type": "search_query",
    "embedding_types": ["float", "ubinary"],
    "truncate": "NONE",
}
FIELDS = (
    KnownFields(
        ("/v1/embed",),
        "Cohere",
        "https://docs.cohere.com/v1/reference/embed",
        _BASE,
        obeyed=_COMMON,
        refused={"images": ["data:image/png;base64,AA=="], "input_type": "image"},
    ),
    KnownFields(
        ("/v2/embed",),
        "Cohere, vLLM",
        "https://docs.cohere.com/reference/embed, vllm/entrypoints/pooling/embed/protocol.py",
        _BASE,
        obeyed={**_COMMON, "output_dimension": 8},
        refused={"images": ["data:image/png;base64,AA=="], "input_type": "image", "max_tokens": 8},
        harmless={"priority": 1},
    ),
    KnownFields(
        ("/v2/embed",),
        "Cohere, vLLM",
        "https://docs.cohere.com/reference/embed, vllm/entrypoints/pooling/embed/protocol.py",
        _MIXED,
        obeyed={"inputs": [{"content": [{"type": "text", "text": "other"}]}]},
        refused={"inputs": [{"content": [{"type": "image_url"}]}]},
    ),
)
"""By route."""
