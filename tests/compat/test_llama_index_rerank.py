"""llama-index: Cohere's, Jina's and text-embeddings-inference's postprocessors of nodes.

https://developers.llamaindex.ai/python/framework/module_guides/querying/node_postprocessors/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cohere
import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank  # type: ignore[import-untyped]
from llama_index.postprocessor.jinaai_rerank import JinaRerank  # type: ignore[import-untyped]
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference  # type: ignore[import-untyped]

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked

Make = Callable[..., Any]
KINDS: dict[str, Make] = {
    "cohere": lambda url, model=MODEL, **more: CohereRerank(model=model, base_url=url, api_key="unused", **more),
    "jina": lambda url, model=MODEL, **more: JinaRerank(model=model, base_url=url, api_key="unused", **more),
    "jina /v1": lambda url, model=MODEL, **more: JinaRerank(
        model=model, base_url=f"{url}/v1", api_key="unused", **more
    ),
    # The model is that of the gateway's setting tei.rerank_model.
    "tei": lambda url, **more: TextEmbeddingInference(base_url=url, **more),
}
"""Makes each of them; TEI's names no model."""


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]


def nodes(*more: str) -> list[NodeWithScore]:
    """New ones, because text-embeddings-inference's writes the scores into those it is given."""
    texts = [*PASSAGES, *more]
    return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.5) for i, text in enumerate(texts)]


def pairs(found: list[NodeWithScore]) -> list[tuple[int, float]]:
    return [(int(each.node.node_id), each.score or 0.0) for each in found]


@pytest.mark.parametrize("top_n", NUMBERS_OF_BEST)
def test_nodes_are_ranked(make: Make, url: str, plain: PlainHTTP, top_n: int) -> None:
    found = make(url, top_n=top_n).postprocess_nodes(nodes(), query_str=QUERY)

    assert_ranked(pairs(found), plain.scores(QUERY, PASSAGES), top_n)


async def test_async_calls_rank(make: Make, url: str, plain: PlainHTTP) -> None:
    found = await make(url, top_n=3).apostprocess_nodes(nodes(), QueryBundle(QUERY))

    assert_ranked(pairs(found), plain.scores(QUERY, PASSAGES), 3)


def test_no_nodes_are_no_request(make: Make, url: str) -> None:
    assert make(f"{url}/nothing-is-here").postprocess_nodes([], query_str=QUERY) == []


def test_errors_have_coheres_classes(url: str) -> None:
    with pytest.raises(cohere.NotFoundError):
        KINDS["cohere"](url, model="no-such-model").postprocess_nodes(nodes(), query_str=QUERY)
    with pytest.raises(cohere.BadRequestError):
        KINDS["cohere"](url).postprocess_nodes(nodes(), query_str="")


@pytest.mark.parametrize("kind", ["jina", "jina /v1"])
def test_errors_of_jinas_ranker_name_the_fault(kind: str, url: str) -> None:
    with pytest.raises(RuntimeError, match="no-such-model"):
        KINDS[kind](url, model="no-such-model").postprocess_nodes(nodes(), query_str=QUERY)
    with pytest.raises(RuntimeError, match="a query must not be empty"):
        KINDS[kind](url).postprocess_nodes(nodes(), query_str="")


def test_an_error_of_text_embeddings_inferences_is_no_order(url: str) -> None:
    # It checks no status: the error body is shorter than its list of nodes.
    with pytest.raises(AssertionError):
        KINDS["tei"](url).postprocess_nodes(nodes(), query_str="")


def test_an_empty_node_is_ranked(make: Make, url: str) -> None:
    ranked = make(url, top_n=6).postprocess_nodes(nodes(""), query_str=QUERY)
    assert len(ranked) == len(nodes("")) == 6
