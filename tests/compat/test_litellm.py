"""litellm: https://github.com/BerriAI/litellm, by each of its providers that speaks an API of the gateway."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

from tests.compat.plain_http import MODEL, TEXTS, PlainHTTP, assert_same


def rows(answer: Any) -> list[Any]:
    return [row["embedding"] for row in sorted(answer.data, key=lambda row: row["index"])]


def test_openai_provider_embeds(url: str, plain: PlainHTTP) -> None:
    answer: Any = litellm.embedding(f"openai/{MODEL}", input=list(TEXTS), api_base=f"{url}/v1", api_key="unused")

    assert_same(rows(answer), plain.vectors(TEXTS))
    assert answer.usage.total_tokens == plain.tokens(TEXTS)


def test_openai_provider_embeds_as_base64(url: str, plain: PlainHTTP) -> None:
    answer: Any = litellm.embedding(
        f"openai/{MODEL}", input=list(TEXTS), api_base=f"{url}/v1", api_key="unused", encoding_format="base64"
    )

    assert {type(row) for row in rows(answer)} == {str}
    assert len(rows(answer)) == len(TEXTS)
    assert answer.usage.total_tokens == plain.tokens(TEXTS)


async def test_openai_provider_embeds_asynchronously(url: str, plain: PlainHTTP) -> None:
    answer = await litellm.aembedding(f"openai/{MODEL}", input=list(TEXTS), api_base=f"{url}/v1", api_key="unused")

    assert_same(rows(answer), plain.vectors(TEXTS))


def test_cohere_provider_embeds(url: str, plain: PlainHTTP) -> None:
    answer: Any = litellm.embedding(
        f"cohere/{MODEL}",
        input=list(TEXTS),
        api_base=f"{url}/v2/embed",
        api_key="unused",
        input_type="search_document",
    )

    assert_same(rows(answer), plain.vectors(TEXTS))


def test_infinity_provider_embeds(url: str, plain: PlainHTTP) -> None:
    answer: Any = litellm.embedding(f"infinity/{MODEL}", input=list(TEXTS), api_base=url, api_key="unused")

    assert_same(rows(answer), plain.vectors(TEXTS))
    assert answer.usage.total_tokens == plain.tokens(TEXTS)


def test_unknown_model_is_not_found(url: str) -> None:
    with pytest.raises(litellm.exceptions.NotFoundError):
        litellm.embedding("openai/no-such-model", input=["x"], api_base=f"{url}/v1", api_key="unused")


def test_dimensions_that_the_model_does_not_have(url: str) -> None:
    with pytest.raises(litellm.exceptions.BadRequestError, match="dimensions"):
        litellm.embedding(
            f"openai/{MODEL}",
            input=["x"],
            api_base=f"{url}/v1",
            api_key="unused",
            dimensions=100,
            allowed_openai_params=["dimensions"],
        )
