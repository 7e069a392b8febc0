"""The request fields of vLLM's score routes."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields

_PARTS = {"content": [{"type": "text", "text": "other"}]}
_IMAGE = {"content": [{"type": "image_url"}]}
_SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
FIELDS = tuple(
    KnownFields(
        ("/score", "/v1/score"),
        "vLLM",
        "vllm/entrypoints/pooling/scoring/protocol.py, vllm/entrypoints/pooling/base/protocol.py",
        {query: "swifts sleep", document: ["bread needs salt", "swifts sleep"], "truncate_prompt_tokens": -1},
        obeyed={
            query: _PARTS,
            document: [_PARTS],
            "model": "no/such",
            "max_tokens_per_doc": 8,
            "truncate_prompt_tokens": None,
            "truncation_side": "left",
            "use_activation": False,
            "activation": False,
            "softmax": False,
        },
        refused={
            query: _IMAGE,
            document: [_IMAGE],
            "truncate_prompt_tokens": 8,
            "max_tokens_per_query": 8,
            "instruction": "a",
            "chat_template_kwargs": {"instruction": "a"},
            "padding": "max_length",
        },
        harmless={
            "user": "a",
            "request_id": "a",
            "priority": 1,
            "cache_salt": "a",
            "mm_processor_kwargs": {"a": 1},
        },
    )
    for query, document in _SIDES
)
"""By the names of the two sides."""
