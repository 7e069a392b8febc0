"""The request fields of the rerank routes with `documents`: those of Cohere, Jina, vLLM and infinity."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields

_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
_TEXTS = {"query": "swifts sleep", "documents": ["bread needs salt", "swifts sleep"]}
_OBJECTS = {
    "query": "swifts sleep",
    "documents": [{"title": "bread", "text": "It needs salt."}, {"title": "swifts", "text": "They sleep."}],
}
_WITHOUT_DOCUMENTS = {"return_documents": False}
_COMMON = {"query": "bread", "documents": ["other"], "model": "no/such", "top_n": 1}
VLLM_SOURCE = "vllm/entrypoints/pooling/scoring/protocol.py, vllm/entrypoints/pooling/base/protocol.py"
"""Where vLLM declares the fields of scoring and reranking."""
VLLM_TEXT_PARTS = {"content": [{"type": "text", "text": "other"}]}
VLLM_IMAGE_PARTS = {"content": [{"type": "image_url"}]}
VLLM_OBEYED = {
    "model": "no/such",
    "max_tokens_per_doc": 8,
    "truncate_prompt_tokens": None,
    "truncation_side": "left",
    "use_activation": False,
    "activation": False,
    "softmax": False,
}
"""What vLLM's scoring and reranking have besides the texts; their base has `"truncate_prompt_tokens": -1`."""
VLLM_REFUSED = {
    "truncate_prompt_tokens": 8,
    "max_tokens_per_query": 8,
    "instruction": "a",
    "chat_template_kwargs": {"instruction": "a"},
    "padding": "max_length",
}
VLLM_HARMLESS = {"user": "a", "request_id": "a", "priority": 1, "cache_salt": "a", "mm_processor_kwargs": {"a": 1}}
FIELDS = (
    KnownFields(
        _PATHS,
        "Cohere",
        "https://docs.cohere.com/reference/rerank, https://docs.cohere.com/v1/reference/rerank",
        _OBJECTS | _WITHOUT_DOCUMENTS,
        obeyed={**_COMMON, "rank_fields": ["title"], "return_documents": True, "max_tokens_per_doc": 8},
        refused={"max_chunks_per_doc": 10},
        harmless={"priority": 1},
    ),
    KnownFields(
        _PATHS,
        "Jina",
        "https://api.jina.ai/openapi.json",
        _TEXTS | _WITHOUT_DOCUMENTS,
        obeyed={
            **_COMMON,
            "query": {"text": "other"},
            "documents": [{"text": "other"}],
            "return_documents": True,
            "max_doc_length": 8,
            "truncation": False,
        },
        refused={"documents": [{"image": "https://example.com/a.png"}], "return_embeddings": True},
    ),
    KnownFields(
        _PATHS,
        "vLLM",
        VLLM_SOURCE,
        {**_TEXTS, "truncate_prompt_tokens": -1},
        obeyed={**_COMMON, "query": VLLM_TEXT_PARTS, "documents": [VLLM_TEXT_PARTS], **VLLM_OBEYED},
        refused={"query": VLLM_IMAGE_PARTS, "documents": [VLLM_IMAGE_PARTS], **VLLM_REFUSED},
        harmless=VLLM_HARMLESS,
    ),
    KnownFields(
        _PATHS,
        "infinity",
        "libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py",
        _TEXTS | _WITHOUT_DOCUMENTS,
        obeyed={**_COMMON, "return_documents": True, "raw_scores": True},
    ),
)
"""By API."""
