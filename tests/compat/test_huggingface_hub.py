"""huggingface_hub's InferenceClient against a text-embeddings-inference URL.

https://huggingface.co/docs/huggingface_hub/package_reference/inference_client
"""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.compat.plain_http import DIMENSIONS, TEXTS, PlainHTTP, assert_same


def test_single_text_is_embedded(url: str, plain: PlainHTTP) -> None:
    client = InferenceClient(model=url)

    for text in TEXTS:
        assert_same(client.feature_extraction(text), plain.vectors([text]))


def test_batch_is_embedded(url: str, plain: PlainHTTP) -> None:
    vectors = InferenceClient(base_url=url).feature_extraction(list(TEXTS))

    assert vectors.dtype == np.float32
    assert_same(vectors, plain.vectors(TEXTS))


def test_the_path_of_the_route(url: str, plain: PlainHTTP) -> None:
    assert_same(InferenceClient().feature_extraction(TEXTS[0], model=f"{url}/embed"), plain.vectors(TEXTS[:1]))


def test_options_of_feature_extraction_apply(url: str, plain: PlainHTTP) -> None:
    client = InferenceClient(model=url)
    raw = client.feature_extraction(TEXTS[0], normalize=False)
    scaled = client.feature_extraction(TEXTS[0], normalize=True)
    start = client.feature_extraction(TEXTS[-1], truncate=True, truncation_direction="right")
    end = client.feature_extraction("Bread needs salt. " + TEXTS[-1], truncate=True, truncation_direction="left")

    assert np.linalg.norm(scaled) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=1e-2)
    assert_same(raw, plain.vectors(TEXTS[:1]))
    assert_same(start, plain.vectors(TEXTS[-1:]))
    assert_same(end, client.feature_extraction(TEXTS[-1], truncation_direction="left"))


def test_similarity_is_the_cosine_of_the_vectors(url: str, plain: PlainHTTP) -> None:
    expected = (plain.vectors(TEXTS[1:]) @ plain.vector(TEXTS[0])).tolist()

    for client, model in ((InferenceClient(model=url), None), (InferenceClient(), f"{url}/similarity")):
        assert client.sentence_similarity(TEXTS[0], list(TEXTS[1:]), model=model) == pytest.approx(expected, abs=1e-5)


async def test_async_client_embeds_and_raises(url: str, plain: PlainHTTP) -> None:
    async with AsyncInferenceClient(model=url) as client:
        assert_same(await client.feature_extraction(TEXTS[0]), plain.vectors(TEXTS[:1]))
        with pytest.raises(BadRequestError):
            await client.feature_extraction("")


def test_empty_text_is_refused(url: str) -> None:
    with pytest.raises(BadRequestError, match="empty") as raised:
        InferenceClient(model=url).feature_extraction("")

    assert raised.value.response.json()["error_type"] == "Empty"


def test_a_text_that_may_not_be_cut(url: str) -> None:
    with pytest.raises(HfHubHTTPError) as raised:
        InferenceClient(model=url).feature_extraction(TEXTS[-1], truncate=False)

    assert raised.value.response.status_code == 413
    assert raised.value.response.json()["error_type"] == "Validation"


def test_a_prompt_that_the_model_does_not_have(url: str) -> None:
    with pytest.raises(HfHubHTTPError) as raised:
        InferenceClient(model=url).feature_extraction("x", prompt_name="no-such-prompt")

    assert 400 <= raised.value.response.status_code < 500
    assert "prompt_name" in raised.value.response.json()["error"]
    assert InferenceClient(model=url).feature_extraction("x").shape == (1, DIMENSIONS)
