"""The embedder with a fake model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from bentos.embedding.embedder import Embedder, EmbedJob
from bentos.embedding.settings import EmbeddingSettings
from bentos.models.tokens import EncodedText
from tests.fakes import DIMENSIONS, VOCABULARY, FakeEmbeddingModel, pooled_vector, token_vectors
from torchless.contracts.errors import ErrorKind, TorchlessError


@asynccontextmanager
async def embedder(*models: FakeEmbeddingModel, **options: Any) -> AsyncIterator[Embedder]:
    made = models or (FakeEmbeddingModel(),)
    own = [{"id": each.id} for each in made]
    subject = Embedder(made, EmbeddingSettings.model_validate({"warm_up_batches": 0, "models": own, **options}))
    await subject.start()
    try:
        yield subject
    finally:
        await subject.stop()


def ids(model: FakeEmbeddingModel, text: str) -> list[int]:
    return list(model.encode([text], None)[0].ids)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.float32(np.linalg.norm(vector))


async def test_vectors_keep_the_order_of_texts_of_different_lengths() -> None:
    model = FakeEmbeddingModel()
    texts = ["one two three four five", "one", "one two", "a b c d e f g h i j", "x"] * 7
    async with embedder(model) as subject:
        answer = await subject.embed(EmbedJob(texts=texts))
    for text, vector, count in zip(texts, answer.vectors, answer.token_counts, strict=True):
        np.testing.assert_allclose(vector, unit(pooled_vector(ids(model, text))), rtol=1e-5)
        assert count == len(text.split()) + 1
    assert len(model.batches) > 1
    assert all(max(one) * len(one) <= model.max_batch_tokens for one in model.batches)


async def test_vectors_can_be_raw_or_truncated() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model) as subject:
        raw = await subject.embed(EmbedJob(texts=["a b"], normalize=False))
        cut = await subject.embed(EmbedJob(texts=["a b"], dimensions=4))
        whole = await subject.embed(EmbedJob(texts=["a b"], dimensions=DIMENSIONS))
    vector = pooled_vector(ids(model, "a b"))
    np.testing.assert_allclose(raw.vectors[0], vector)
    np.testing.assert_allclose(cut.vectors[0], unit(vector[:4]), rtol=1e-5)
    np.testing.assert_allclose(whole.vectors[0], unit(vector), rtol=1e-5)


async def test_per_token_gives_a_vector_for_each_token() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model) as subject:
        answer = await subject.embed(EmbedJob(texts=["a b", "c"], per_token=True, normalize=False))
    assert answer.token_counts == [3, 2]
    wanted = np.concatenate([token_vectors(ids(model, "a b")), token_vectors(ids(model, "c"))])
    np.testing.assert_allclose(answer.vectors, wanted)


async def test_requests_with_different_options_share_a_batch() -> None:
    model = FakeEmbeddingModel(batch_s=0.05)
    async with embedder(model) as subject:
        plug = asyncio.create_task(subject.embed(EmbedJob(texts=["plug"])))
        await asyncio.to_thread(model.running.wait)
        await asyncio.gather(
            subject.embed(EmbedJob(texts=["a"], normalize=False)),
            subject.embed(EmbedJob(texts=["b"], dimensions=2)),
            subject.embed(EmbedJob(texts=["c"], per_token=True)),
            subject.embed(EmbedJob(texts=["d"], purpose="query")),
        )
        await plug
    assert [len(one) for one in model.batches] == [1, 4]


async def test_prompts_by_purpose_and_by_name() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model) as subject:
        by_purpose = await subject.embed(EmbedJob(texts=["a"], purpose="query"))
        by_name = await subject.embed(EmbedJob(texts=["a"], purpose="document", prompt_name="query"))
        plain = await subject.embed(EmbedJob(texts=["find: a"]))
        info, counts = await subject.count_tokens(["a", "a b"], "", "query", "")
    np.testing.assert_array_equal(by_purpose.vectors, by_name.vectors)
    np.testing.assert_array_equal(by_purpose.vectors, plain.vectors)
    assert (info.id, counts) == ("fake", [3, 4])


async def test_truncation_right_left_and_none() -> None:
    model = FakeEmbeddingModel()
    words = [f"w{n}" for n in range(40)]
    async with embedder(model) as subject:
        right = await subject.embed(EmbedJob(texts=[" ".join(words)]))
        left = await subject.embed(EmbedJob(texts=[" ".join(words)], truncate="left"))
        start = await subject.embed(EmbedJob(texts=[" ".join(words[:15])]))
        end = await subject.embed(EmbedJob(texts=[" ".join(words[-15:])]))
        np.testing.assert_allclose(right.vectors, start.vectors)
        np.testing.assert_allclose(left.vectors, end.vectors)
        with pytest.raises(TorchlessError) as caught:
            await subject.embed(EmbedJob(texts=["short", " ".join(words)], truncate=None))
        _, counts = await subject.count_tokens([" ".join(words)], "", None, "")
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert "texts[1]" in caught.value.message
    assert "41 tokens" in caught.value.message
    assert "16" in caught.value.message
    assert counts == [41]


async def test_token_ids_embed_like_their_text() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model) as subject:
        wanted = await subject.embed(EmbedJob(texts=["alpha beta", "gamma"]))
        given = [ids(model, "alpha beta")[1:], ids(model, "gamma")[1:]]
        answer = await subject.embed(EmbedJob(token_ids=given))
    np.testing.assert_array_equal(answer.vectors, wanted.vectors)


@pytest.mark.parametrize(
    ("job", "kind", "named"),
    [
        (EmbedJob(), ErrorKind.INVALID_INPUT, "texts: must not be empty"),
        (
            EmbedJob(texts=["a", "x" * 101], truncate=None),
            ErrorKind.INPUT_TOO_LARGE,
            "texts[1]: has 101 characters; the maximum without truncation is 100",
        ),
        (EmbedJob(texts=["a"] * 11), ErrorKind.INPUT_TOO_LARGE, "texts: hold 11 inputs; the maximum is 10"),
        (EmbedJob(texts=["a"], model="other"), ErrorKind.NOT_FOUND, "'other'"),
        (EmbedJob(texts=["a"], dimensions=5), ErrorKind.INVALID_INPUT, "8, 4, 2"),
        (EmbedJob(texts=["a"], prompt_name="no"), ErrorKind.INVALID_INPUT, "document, query"),
        (EmbedJob(token_ids=[[1, VOCABULARY]]), ErrorKind.INVALID_INPUT, "token_ids[0][1]"),
        (EmbedJob(token_ids=[[]]), ErrorKind.INVALID_INPUT, "token_ids[0]: must not be empty"),
        (EmbedJob(texts=["a"], token_ids=[[1]]), ErrorKind.INVALID_INPUT, "together"),
    ],
)
async def test_invalid_field_is_named_and_the_next_request_works(job: EmbedJob, kind: ErrorKind, named: str) -> None:
    async with embedder(max_inputs=10, max_input_characters=100) as subject:
        with pytest.raises(TorchlessError) as caught:
            await subject.embed(job)
        assert caught.value.kind is kind
        assert named in caught.value.message
        assert (await subject.embed(EmbedJob(texts=["fine"]))).vectors.shape == (1, DIMENSIONS)


async def test_two_models_never_share_a_batch() -> None:
    first, second = FakeEmbeddingModel(id="first"), FakeEmbeddingModel(id="second")
    async with embedder(first, second) as subject:
        answers = await asyncio.gather(
            *(subject.embed(EmbedJob(texts=[f"t{n}"], model=["", "first", "second"][n % 3])) for n in range(30))
        )
        assert [a.info.id for a in answers] == ["first", "first", "second"] * 10
        assert [info.id for info in subject.models()] == ["first", "second"]
    assert sum(map(len, first.batches)) == 20
    assert sum(map(len, second.batches)) == 10


async def test_failing_text_fails_only_its_own_request() -> None:
    model = FakeEmbeddingModel(batch_s=0.05, poison="poison")
    async with embedder(model) as subject:
        plug = asyncio.create_task(subject.embed(EmbedJob(texts=["plug"])))
        await asyncio.to_thread(model.running.wait)
        outcomes = await asyncio.gather(
            *(subject.embed(EmbedJob(texts=[text])) for text in ("a", "poison", "b")), return_exceptions=True
        )
        await plug
    assert [type(each).__name__ for each in outcomes] == ["EmbedAnswer", "TorchlessError", "EmbedAnswer"]


async def test_vectors_that_are_not_finite_are_an_error() -> None:
    class Broken(FakeEmbeddingModel):
        def embed(self, items: Any, prompt_tokens: int) -> Any:
            return [np.full(DIMENSIONS, np.nan, dtype=np.float32) for _ in items]

    async with embedder(Broken()) as subject:
        with pytest.raises(TorchlessError, match="not finite"):
            await subject.embed(EmbedJob(texts=["a"]))


async def test_deadline_that_passes_in_the_queue_is_reported() -> None:
    model = FakeEmbeddingModel(batch_s=0.1)
    async with embedder(model) as subject:
        plug = asyncio.create_task(subject.embed(EmbedJob(texts=["plug"])))
        await asyncio.to_thread(model.running.wait)
        with pytest.raises(TorchlessError) as caught:
            await subject.embed(EmbedJob(texts=["late"]), expires_at=time.monotonic() + 0.01)
        await plug
    assert caught.value.kind is ErrorKind.DEADLINE
    assert len(model.batches) == 1


async def test_token_vectors_above_the_message_limit_are_refused_before_inference() -> None:
    model = FakeEmbeddingModel(max_tokens=60_000, max_batch_tokens=60_000)
    async with embedder(model, max_message_mib=1) as subject:
        with pytest.raises(TorchlessError) as caught:
            await subject.embed(EmbedJob(texts=["word " * 40_000], per_token=True))
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert "40001 tokens" in caught.value.message
    assert model.batches == []


async def test_texts_of_any_length_may_be_truncated() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model, max_input_characters=10, max_request_characters=20) as subject:
        answer = await subject.embed(EmbedJob(texts=["w " * 1000, "w", "w " * 16]))
    assert answer.token_counts == [16, 2, 16]
    assert answer.truncated == [0, 2]


async def test_truncated_inputs_are_named_and_counted() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("torchless_truncated_inputs_total", labels) or 0

    model, labels = FakeEmbeddingModel(id="counted"), {"service": "embedding", "model": "counted"}
    async with embedder(model) as subject:
        assert (await subject.embed(EmbedJob(texts=["w " * 15]))).truncated == []
        before = counted()
        assert (await subject.embed(EmbedJob(texts=["w " * 16, "w", "w " * 99]))).truncated == [0, 2]
        left = await subject.embed(EmbedJob(texts=["w", "w " * 16], truncate="left", per_token=True))
        assert left.truncated == [1]
        prompted = await subject.embed(EmbedJob(texts=["w " * 15], purpose="query"))
        assert prompted.truncated == [0]
    assert (before, counted()) == (0, 4)


async def test_empty_text_is_embedded_as_the_model_reads_it() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model) as subject:
        answer = await subject.embed(EmbedJob(texts=["", "a"]))
        assert (await subject.count_tokens([""], "", None, ""))[1] == [1]
    np.testing.assert_allclose(answer.vectors[0], unit(pooled_vector([0])), rtol=1e-5)
    assert answer.token_counts == [1, 2]


async def test_text_without_tokens_is_refused() -> None:
    class NoSpecialTokens(FakeEmbeddingModel):
        def encode(self, texts: Any, truncate: Any) -> Any:
            return [EncodedText(text.ids[1:]) for text in super().encode(texts, truncate)]

    async with embedder(NoSpecialTokens()) as subject:
        for empty in ("", " "):
            with pytest.raises(TorchlessError, match=r"texts\[1\]: has no tokens") as caught:
                await subject.embed(EmbedJob(texts=["a", empty]))
            assert caught.value.kind is ErrorKind.INVALID_INPUT


async def test_texts_above_the_total_limit_are_refused() -> None:
    async with embedder(max_request_characters=100) as subject:
        refusing = EmbedJob(texts=["x" * 60] * 2, truncate=None)
        with pytest.raises(TorchlessError, match="120 characters in total; the maximum without truncation is 100"):
            await subject.embed(refusing)
        with pytest.raises(TorchlessError, match="120 characters in total"):
            await subject.count_tokens(refusing.texts, "", None, "")


async def test_limits_for_callers_do_not_stop_the_warm_up() -> None:
    model = FakeEmbeddingModel()
    async with embedder(model, warm_up_batches=1, max_inputs=1, max_input_characters=3, max_request_characters=3):
        assert sum(len(lengths) for lengths in model.batches) == 33
