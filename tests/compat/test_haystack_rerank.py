"""haystack: Cohere's, Jina's and text-embeddings-inference's rankers: https://docs.haystack.deepset.ai/docs/rankers"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cohere
import pytest
from haystack import Document, Pipeline
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.huggingface_api.ranker import TruncationDirection
from haystack_integrations.components.rankers.jina import JinaRanker

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked

Make = Callable[..., Any]
KEY = Secret.from_token("unused")
DOCUMENTS = [Document(content=passage, meta={"number": number}) for number, passage in enumerate(PASSAGES)]
KINDS: dict[str, Make] = {
    "cohere": lambda url, model=MODEL: CohereRanker(model=model, api_base_url=url, api_key=KEY),
    # Its base URL is that of the route.
    "jina": lambda url, model=MODEL: JinaRanker(model=model, base_url=f"{url}/rerank", api_key=KEY),
    "jina /v1": lambda url, model=MODEL: JinaRanker(model=model, base_url=f"{url}/v1/rerank", api_key=KEY),
    # The model is that of the gateway's setting tei.rerank_model.
    "tei": lambda url: HuggingFaceTEIRanker(url=url, token=KEY),
}
"""Makes each of them; TEI's names no model."""


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


def pairs(answer: Any) -> list[tuple[int, float]]:
    return [(document.meta["number"], document.score) for document in answer["documents"]]


@pytest.mark.parametrize("top_k", NUMBERS_OF_BEST)
def test_ranker_returns_the_best_documents(make: Make, url: str, plain: PlainHTTP, top_k: int) -> None:
    answer = make(url).run(query=QUERY, documents=DOCUMENTS, top_k=top_k)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), top_k)


def test_ranker_returns_all_documents_by_default(make: Make, url: str, plain: PlainHTTP) -> None:
    assert_ranked(pairs(make(url).run(query=QUERY, documents=DOCUMENTS)), plain.scores(QUERY, PASSAGES))


@pytest.mark.parametrize("kind", ["cohere", "tei"])
async def test_async_ranker_ranks(kind: str, url: str, plain: PlainHTTP) -> None:
    answer = await KINDS[kind](url).run_async(query=QUERY, documents=DOCUMENTS, top_k=3)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), 3)


def test_ranker_runs_in_a_pipeline(make: Make, url: str, plain: PlainHTTP) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", make(url))

    answer = pipeline.run({"ranker": {"query": QUERY, "documents": DOCUMENTS, "top_k": 2}})

    assert_ranked(pairs(answer["ranker"]), plain.scores(QUERY, PASSAGES), 2)


@pytest.mark.parametrize("kind", ["jina", "jina /v1"])
def test_jinas_says_which_model_read_how_much(kind: str, url: str) -> None:
    meta = KINDS[kind](url).run(query=QUERY, documents=DOCUMENTS)["meta"]

    assert meta["model"] == MODEL
    assert meta["usage"]["total_tokens"] > 0


def test_jinas_leaves_out_what_scores_less_than_a_threshold(url: str, plain: PlainHTTP) -> None:
    scores = sorted(plain.scores(QUERY, PASSAGES), reverse=True)

    answer = KINDS["jina"](url).run(query=QUERY, documents=DOCUMENTS, score_threshold=(scores[1] + scores[2]) / 2)

    assert_ranked(pairs(answer), plain.scores(QUERY, PASSAGES), 2)


def test_coheres_reads_fields_of_meta(url: str, plain: PlainHTTP) -> None:
    documents = [replace(document, meta={**document.meta, "title": "Sleep"}) for document in DOCUMENTS]
    ranker = CohereRanker(model=MODEL, api_base_url=url, api_key=KEY, meta_fields_to_embed=["title"])

    answer = ranker.run(query=QUERY, documents=documents)

    assert_ranked(pairs(answer), plain.scores(QUERY, [f"Sleep\n{passage}" for passage in PASSAGES]))


def test_raw_scores_of_text_embeddings_inferences_have_the_same_order(url: str, plain: PlainHTTP) -> None:
    answer = HuggingFaceTEIRanker(url=url, raw_scores=True).run(query=QUERY, documents=DOCUMENTS)

    # Late interaction's raw scores lie between -1 and 1, and those between 0 and 1 are (1 + score) / 2.
    assert_ranked([(i, (1 + score) / 2) for i, score in pairs(answer)], plain.scores(QUERY, PASSAGES))


def test_text_embeddings_inferences_cuts_either_end(url: str, plain: PlainHTTP) -> None:
    document = Document(content="Bread needs salt. " * 200 + PASSAGES[2])
    ranker = HuggingFaceTEIRanker(url=url)

    def score(direction: TruncationDirection) -> float:
        found = ranker.run(query=QUERY, documents=[document], truncation_direction=direction)["documents"]
        return float(found[0].score)

    assert score(TruncationDirection.RIGHT) == pytest.approx(plain.score(QUERY, str(document.content)), abs=1e-5)
    assert score(TruncationDirection.LEFT) > score(TruncationDirection.RIGHT) + 0.05


def test_empty_documents_are_not_sent_or_are_refused(url: str) -> None:
    nowhere = f"{url}/nothing-is-here"

    assert KINDS["jina"](nowhere).run(query=QUERY, documents=[])["documents"] == []
    assert KINDS["tei"](nowhere).run(query=QUERY, documents=[])["documents"] == []
    with pytest.raises(cohere.BadRequestError, match="documents"):
        KINDS["cohere"](url).run(query=QUERY, documents=[])


def test_errors_have_coheres_classes(url: str) -> None:
    with pytest.raises(cohere.NotFoundError):
        KINDS["cohere"](url, model="no-such-model").run(query=QUERY, documents=DOCUMENTS)


def test_an_empty_document_is_ranked(make: Make, url: str) -> None:
    found = make(url).run(query=QUERY, documents=[*DOCUMENTS, Document(content="")])["documents"]
    assert "" in [document.content for document in found]


@pytest.mark.parametrize("kind", ["jina", "jina /v1"])
def test_errors_of_jinas_ranker_name_the_fault(kind: str, url: str) -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        KINDS[kind](url, model="no-such-model").run(query=QUERY, documents=DOCUMENTS)


def test_errors_of_text_embeddings_inferences(url: str) -> None:
    with pytest.raises(RuntimeError, match=r"texts\[5\]"):
        KINDS["tei"](url).run(query=QUERY, documents=[*DOCUMENTS, Document(content=None)])
