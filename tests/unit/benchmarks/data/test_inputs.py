"""The requests of a run, and the collections that they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.data.collection import NoCollectionError, read_collection
from benchmarks.data.inputs import Request, make_pools
from benchmarks.data.texts import of_sentences
from benchmarks.plan import FULL, QUICK, RERANKING, SHORT, Part, Task

ENTRIES = {
    "1": {
        "QUESTION": "Do swifts sleep?",
        "CONTEXTS": ["They fly for months.", "It was long unknown how a bird that hardly lands could sleep at all."],
        "LONG_ANSWER": "Yes.",
    },
    "2": {
        "QUESTION": "Does bread rise?",
        "CONTEXTS": ["Yeast makes gas out of sugar, and gluten holds it in bubbles."],
    },
}


def write(folder: Path, content: object) -> Path:
    (folder / "ori_pqal.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_collection_joins_the_contexts_of_each_question(tmp_path: Path) -> None:
    found = read_collection(write(tmp_path, ENTRIES))
    assert found.questions == ["Do swifts sleep?", "Does bread rise?"]
    assert found.documents[0].startswith("They fly for months. It was long")
    assert "Yes." not in found.documents[0]


@pytest.mark.parametrize(
    "content", [{}, [], {"1": {"QUESTION": "Why?"}}, {"1": {"QUESTION": "Why?", "CONTEXTS": [3]}}, {"1": "Why?"}]
)
def test_an_invalid_collection_is_refused_with_its_path(tmp_path: Path, content: object) -> None:
    with pytest.raises(NoCollectionError, match=r"ori_pqal\.json"):
        read_collection(write(tmp_path, content))
    with pytest.raises(NoCollectionError, match="cannot be read"):
        read_collection(tmp_path / "elsewhere")


def test_short_sentences_are_joined_and_a_short_rest_is_left_out() -> None:
    long = "Each of these words counts until there are at least twelve of them."
    assert of_sentences(f"One. Two! {long} Rest.") == [f"One. Two! {long}"]
    assert of_sentences(f"{long} {long}") == [long, long]


def test_every_load_has_the_requests_that_its_name_says(tmp_path: Path) -> None:
    pools = make_pools(tmp_path / "none")
    for case in FULL.cases:
        requests = pools.requests(case)
        assert {len(request.texts) for request in requests} == {case.items}
        assert all(bool(request.query) == (case.task is not Task.EMBEDDING) for request in requests)
    first, second = pools.requests(RERANKING[0])[:2]
    assert first.query != second.query
    assert not set(first.texts) & set(second.texts)
    assert Request(**json.loads(json.dumps(first.to_json()))) == first


def test_documents_come_from_a_collection_if_it_exists(tmp_path: Path) -> None:
    pools = make_pools(write(tmp_path, ENTRIES))
    assert pools.queries == ["Do swifts sleep?", "Does bread rise?"]
    assert len(pools.documents) == 2
    assert tmp_path.name in pools.source


def test_a_plan_of_one_part_has_all_of_its_loads_and_no_other() -> None:
    assert set(FULL.only(Part.RERANKING).tasks) == {Task.RERANKING, Task.CROSS_ENCODER}
    assert QUICK.only(Part.EMBEDDING).cases == SHORT
    assert QUICK.only(Part.EMBEDDING).layer is None
    assert len({case.name for case in FULL.cases}) == len(FULL.cases)


def test_the_client_layer_alone_needs_no_load_on_the_stack() -> None:
    alone = FULL.only(Part.LAYER)
    assert (alone.cases, alone.layer) == ((), FULL.layer)


def test_rounds_and_seconds_also_change_the_client_layer() -> None:
    plan = FULL.sized(rounds=2, seconds=None)
    assert plan.layer is not None
    assert FULL.layer is not None
    assert (plan.rounds, plan.layer.rounds) == (2, 2)
    assert (plan.seconds, plan.layer.seconds) == (FULL.seconds, FULL.layer.seconds)
    assert FULL.sized(None, 0.5).seconds == 0.5


def test_a_direct_call_gets_the_requests_in_flight_in_batches() -> None:
    assert [case.direct_batch for case in RERANKING] == [10, 32, 32]
    assert [case.direct_batch for case in SHORT] == [1, 8, 32, 64]
