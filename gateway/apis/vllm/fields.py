"""The request fields of vLLM's score routes."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields
from gateway.apis.rerank.fields import (
    VLLM_HARMLESS,
    VLLM_IMAGE_PARTS,
    VLLM_OBEYED,
    VLLM_REFUSED,
    VLLM_SOURCE,
    VLLM_TEXT_PARTS,
)

_SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
FIELDS = tuple(
    KnownFields(
        ("/score", "/v1/score"),
        "vLLM",
        VLLM_SOURCE,
        {query: "swifts sleep", document: ["bread needs salt", "swifts sleep"], "truncate_prompt_tokens": -1},
        obeyed={query: VLLM_TEXT_PARTS, document: [VLLM_TEXT_PARTS], **VLLM_OBEYED},
        refused={query: VLLM_IMAGE_PARTS, document: [VLLM_IMAGE_PARTS], **VLLM_REFUSED},
        harmless=VLLM_HARMLESS,
    )
    for query, document in _SIDES
)
"""By the names of the two sides."""
