"""From reranking bodies to texts and options."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.apis.rerank.bodies import options_of, texts_of
from gateway.apis.rerank.schemas import RerankRequest
from gateway.http.exceptions import MalformedRequestError
from gateway.settings import LimitSettings
from torchless.clients.reranking import LongDocuments, RerankOptions, ScoreForm

texts = st.text(st.characters(codec="utf-8"))


def body_of(documents: list[Any], **more: Any) -> RerankRequest:
    return RerankRequest.model_validate({"query": "q", "documents": documents, **more})


@given(st.lists(texts | st.fixed_dictionaries({"text": texts}), max_size=8))
def test_texts_arrive_as_they_were_sent(documents: list[Any]) -> None:
    assert texts_of(body_of(documents)) == [d if isinstance(d, str) else d["text"] for d in documents]


def test_fields_are_joined_in_the_order_of_the_request() -> None:
    document = {"a": "1", "b": "2", "text": "3", "n": None, "number": 4}
    assert texts_of(body_of([document], rank_fields=["b", "missing", "n", "a"])) == ["2\n1"]
    assert texts_of(body_of([document])) == ["3"]


@pytest.mark.parametrize(
    ("document", "rank_fields", "field"),
    [
        ({}, None, "documents[1]"),
        ({"text": None}, None, "documents[1]"),
        ({"text": ["a"]}, None, "documents[1].text"),
        ({"text": "a"}, ["title"], "documents[1]"),
        ({"text": "a", "title": 3}, ["text", "title"], "documents[1].title"),
    ],
)
def test_objects_without_a_text(document: dict[str, Any], rank_fields: list[str] | None, field: str) -> None:
    with pytest.raises(MalformedRequestError) as raised:
        texts_of(body_of(["fine", document], rank_fields=rank_fields))
    assert raised.value.violations[0].field == field


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, RerankOptions(score_form=ScoreForm.UNIT)),
        ({"model": "m", "max_tokens_per_doc": 9}, RerankOptions("m", ScoreForm.UNIT, 9)),
        ({"raw_scores": True}, RerankOptions(score_form=ScoreForm.RAW)),
        ({"raw_scores": None, "use_activation": False}, RerankOptions(score_form=ScoreForm.RAW)),
        (
            {"truncate_prompt_tokens": -1, "truncation_side": "left"},
            RerankOptions(score_form=ScoreForm.UNIT, long_documents=LongDocuments.CUT_START),
        ),
    ],
)
def test_options(fields: dict[str, Any], expected: RerankOptions) -> None:
    assert options_of(body_of(["d"], **fields), LimitSettings()) == expected


def test_long_documents_are_refused_where_the_gateway_does_not_truncate() -> None:
    limits = LimitSettings(truncate=False)
    assert options_of(body_of(["d"]), limits).long_documents is LongDocuments.REFUSE
    asked = options_of(body_of(["d"], truncate_prompt_tokens=-1), limits)
    assert asked.long_documents is LongDocuments.CUT
