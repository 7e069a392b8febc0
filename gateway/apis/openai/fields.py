"""The fields of embedding requests on OpenAI's routes, which Jina's, vLLM's, infinity's and TEI's clients call too."""

from __future__ import annotations

from gateway.apis.known_fields import KnownFields

_PATHS = ("/v1/embeddings", "/embeddings")
_BASE = {"input": ["How do swifts sleep?"]}
_MODEL = {"model": "no/such"}
FIELDS = (
    KnownFields(
        _PATHS,
        "OpenAI",
        "openai-python, src/openai/types/embedding_create_params.py",
        _BASE,
        obeyed={"input": "other", **_MODEL, "dimensions": 8, "encoding_format": "base64"},
        harmless={"user": "a"},
    ),
    KnownFields(
        _PATHS,
        "Jina",
        "https://api.jina.ai/openapi.json",
        _BASE,
        obeyed={
            "input": "other",
            **_MODEL,
            "dimensions": 8,
            "embedding_type": "ubinary",
            "normalized": False,
            "truncate": False,
            "task": "retrieval.query",
            "input_type": "query",
        },
        refused={
            "input": [{"text": "other"}],
            "embedding_type": ["float", "ubinary"],
            "task": "code.query",
            "late_chunking": True,
            "return_multivector": True,
            "return_tokenized_input": True,
        },
    ),
    KnownFields(
        _PATHS,
        "vLLM",
        "vllm/entrypoints/pooling/base/protocol.py, vllm/entrypoints/pooling/embed/protocol.py",
        _BASE,
        obeyed={
            "input": "other",
            **_MODEL,
            "dimensions": 8,
            "encoding_format": "base64",
            "truncate_prompt_tokens": -1,
            "truncation_side": "left",
            "use_activation": False,
            "normalize": False,
        },
        refused={
            "truncate_prompt_tokens": 8,
            "messages": [{"role": "user", "content": "a"}],
            "encoding_format": "bytes",
            "embed_dtype": "float16",
            "endianness": "big",
            "add_special_tokens": False,
            "padding": "max_length",
        },
        harmless={
            "user": "a",
            "request_id": "a",
            "priority": 1,
            "cache_salt": "a",
            "mm_processor_kwargs": {"a": 1},
            "media_io_kwargs": {"image": {}},
            "add_generation_prompt": True,
            "continue_final_message": True,
            "chat_template": "a",
            "chat_template_kwargs": {"a": 1},
        },
    ),
    KnownFields(
        _PATHS,
        "infinity",
        "libs/infinity_emb/infinity_emb/fastapi_schemas/pymodels.py",
        _BASE,
        obeyed={"input": "other", **_MODEL, "dimensions": 8, "encoding_format": "base64"},
        refused={"modality": "image"},
        harmless={"user": "a"},
    ),
    KnownFields(
        _PATHS,
        "TEI",
        "router/src/http/types.rs, OpenAICompatRequest",
        _BASE,
        obeyed={"input": "other", **_MODEL, "dimensions": 8, "encoding_format": "base64"},
        harmless={"user": "a"},
    ),
)
"""By API."""
