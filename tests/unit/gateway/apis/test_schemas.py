"""Request models: what is taken, what is refused, and that nothing else happens."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.apis.cohere import schemas as cohere
from gateway.apis.openai import schemas as openai
from gateway.apis.rerank import schemas as rerank
from gateway.apis.tei import schemas as tei
from gateway.apis.vllm import schemas as vllm

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
encodable = st.text(st.characters(codec="utf-8"))
ids = st.lists(st.integers(0, 2**32 - 1), min_size=1)
inputs = encodable | st.lists(encodable, min_size=1) | ids | st.lists(ids, min_size=1)
MODELS: list[tuple[type[BaseModel], str]] = [
    (openai.EmbeddingsRequest, "input"),
    (tei.EmbedRequest, "inputs"),
    (tei.EmbedAllRequest, "inputs"),
    (tei.TokenizeRequest, "inputs"),
    (tei.DecodeRequest, "ids"),
    (tei.SimilarityRequest, "inputs"),
    (cohere.EmbedV1Request, "texts"),
    (cohere.EmbedV2Request, "texts"),
    (rerank.RerankRequest, "documents"),
    (tei.RerankRequest, "texts"),
    (vllm.ScoreRequest, "text_1"),
]


def parse(model: type[BaseModel], body: Any) -> Any:
    return model.model_validate_json(json.dumps(body))


def taken_or_refused(model: type[BaseModel], raw: bytes) -> BaseModel | ValidationError:
    """Whatever else is raised fails the test."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        return error


@given(inputs, st.dictionaries(st.text(), values))
def test_inputs_arrive_as_they_were_sent(given_inputs: Any, others: dict[str, Any]) -> None:
    unknown = {name: value for name, value in others.items() if name not in tei.EmbedRequest.model_fields}
    body = parse(tei.EmbedRequest, {**unknown, "inputs": given_inputs})
    assert body.inputs == given_inputs
    assert body.normalize is True


@given(inputs)
def test_null_is_the_default(given_inputs: Any) -> None:
    fields = {name: None for name in openai.EmbeddingsRequest.model_fields if name != "input"}
    assert parse(openai.EmbeddingsRequest, {**fields, "input": given_inputs}) == parse(
        openai.EmbeddingsRequest, {"input": given_inputs}
    )


@pytest.mark.parametrize(("model", "field"), MODELS)
@given(body=values, value=values)
def test_any_json_is_taken_or_refused(model: type[BaseModel], field: str, body: Any, value: Any) -> None:
    for sent in (body, {field: value}, {field: "a", "dimensions": value, "model": value, "truncate": value}):
        assert isinstance(taken_or_refused(model, json.dumps(sent).encode()), model | ValidationError)


@pytest.mark.parametrize(("model", "field"), MODELS)
@given(raw=st.binary())
@example(raw=b'{"inputs": "\\ud800"}')
@example(raw=b"\xff")
def test_any_bytes_are_taken_or_refused(model: type[BaseModel], field: str, raw: bytes) -> None:
    assert isinstance(taken_or_refused(model, raw), model | ValidationError)


@given(st.floats() | st.text() | st.booleans() | st.integers(max_value=-1) | st.integers(min_value=2**31))
@example(math.nan)
def test_dimensions_are_whole_numbers(dimensions: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        parse(openai.EmbeddingsRequest, {"input": "one", "dimensions": dimensions})
    assert raised.value.errors()[0]["loc"] == ("dimensions",)


@pytest.mark.parametrize("wrong", [["one", 1], [1, "one"], [[1], "one"], [[[1]]], [1.5], [-1], [2**32], {"a": 1}])
def test_a_mixture_is_refused_in_one_sentence(wrong: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        parse(openai.EmbeddingsRequest, {"input": wrong})
    (error,) = raised.value.errors()
    assert error["loc"] == ("input",)
    assert "token ids" in error["msg"]
