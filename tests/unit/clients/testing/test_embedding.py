"""The in-process embedding service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from torchless.clients.embedding import EmbeddingClient, Embeddings, EmbedOptions, Granularity, Truncation
from torchless.clients.testing import EMBEDDING_MODEL, EmbeddingService, vector_of
from torchless.contracts.errors import ErrorKind, TorchlessError

LONG = "word " * 70


@pytest.fixture
async def service() -> AsyncIterator[EmbeddingService]:
    async with EmbeddingService() as service:
        yield service


@pytest.fixture
async def client(service: EmbeddingService) -> AsyncIterator[EmbeddingClient]:
    async with EmbeddingClient(service.address) as client:
        yield client


async def test_vectors_are_hashes_of_length_one_in_the_order_of_the_texts(client: EmbeddingClient) -> None:
    answer = await client.embed(["a b", "c"])
    np.testing.assert_array_equal(answer.vectors, [vector_of("a b"), vector_of("c")])
    np.testing.assert_allclose(np.linalg.norm(answer.vectors, axis=1), 1, rtol=1e-6)
    assert (answer.token_counts, answer.model, answer.revision) == ([4, 3], EMBEDDING_MODEL.id, "1")


async def test_options_choose_dimensions_normalization_prompt_and_granularity(client: EmbeddingClient) -> None:
    raw = vector_of("query: a", normalize=False)
    options = EmbedOptions(dimensions=8, normalize=False, prompt_name="query")
    np.testing.assert_array_equal((await client.embed(["a"], options)).vectors[0], raw[:8])
    tokens = (await client.embed(["a"], EmbedOptions(granularity=Granularity.TOKEN))).vectors
    np.testing.assert_array_equal(tokens, [vector_of("[CLS]"), vector_of("a"), vector_of("[SEP]")])
    np.testing.assert_array_equal((await client.embed([[3, 4]])).vectors[0], vector_of("3 4"))


async def test_dimensions_are_those_of_the_given_model() -> None:
    model = replace(EMBEDDING_MODEL, id="mine", dimensions=384)
    async with EmbeddingService(model) as service, EmbeddingClient(service.address) as client:
        answer = await client.embed(["a"], EmbedOptions(model="mine"))
        assert await client.list_models() == [model]
    np.testing.assert_array_equal(answer.vectors[0], vector_of("a", dimensions=384))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (EmbedOptions(model="other"), ErrorKind.NOT_FOUND),
        (EmbedOptions(dimensions=5), ErrorKind.INVALID_INPUT),
        (EmbedOptions(prompt_name="other"), ErrorKind.INVALID_INPUT),
        (EmbedOptions(truncation=Truncation.NONE), ErrorKind.INPUT_TOO_LARGE),
    ],
)
async def test_service_refuses_what_the_model_does_not_support(
    client: EmbeddingClient, options: EmbedOptions, kind: ErrorKind
) -> None:
    with pytest.raises(TorchlessError) as caught:
        await client.embed(["a", LONG], options)
    assert caught.value.kind is kind


async def test_long_texts_are_truncated_to_the_models_length(client: EmbeddingClient) -> None:
    assert (await client.embed([LONG])).token_counts == [EMBEDDING_MODEL.max_tokens]
    assert await client.count_tokens([LONG, "a"]) == [72, 3]


async def test_tokens_have_positions_in_the_text(client: EmbeddingClient) -> None:
    ((first, a, b, last),) = await client.tokenize(["a  a"])
    assert [(token.text, token.special, token.start) for token in (first, last)] == [
        ("[CLS]", True, None),
        ("[SEP]", True, None),
    ]
    assert [(token.text, token.start, token.stop) for token in (a, b)] == [("a", 0, 1), ("a", 3, 4)]
    assert [token.id for token in (first, a, b, last)] == [1, 3, 4, 2]
    assert await client.detokenize([[7, 8]]) == ["7 8"]
    with pytest.raises(TorchlessError) as caught:
        await client.detokenize([[1], [2, 40_000]])
    assert caught.value.violations[0].path == ("token_ids", 1, 1)


async def test_stream_answers_every_frame_and_goes_on_after_a_refused_one(
    client: EmbeddingClient, service: EmbeddingService
) -> None:
    async def frames() -> AsyncIterator[list[str]]:
        for text in ("a", "b", "c"):
            yield [text]

    service.fail_next(TorchlessError(ErrorKind.INVALID_INPUT, "refused"))
    first, *others = [answer async for answer in client.embed_stream(frames())]
    assert isinstance(first, TorchlessError)
    for answer, text in zip(others, "bc", strict=True):
        assert isinstance(answer, Embeddings)
        np.testing.assert_array_equal(answer.vectors[0], vector_of(text))
