"""langchain-cohere's document compressor: https://github.com/langchain-ai/langchain-cohere"""

from __future__ import annotations

from typing import Any

import cohere
import pytest
from langchain_cohere import CohereRerank
from langchain_core.documents import Document

from tests.compat.plain_http import MODEL, PlainHTTP
from tests.compat.ranking import NUMBERS_OF_BEST, PASSAGES, QUERY, assert_ranked

DOCUMENTS = [Document(passage, metadata={"number": number}) for number, passage in enumerate(PASSAGES)]


def reranker(url: str, **options: Any) -> CohereRerank:
    return CohereRerank(**{"cohere_api_key": "unused", "base_url": url, "model": MODEL, **options})


def pairs(documents: Any) -> list[tuple[int, float]]:
    return [(document.metadata["number"], document.metadata["relevance_score"]) for document in documents]


@pytest.mark.parametrize("top_n", [*NUMBERS_OF_BEST, None])
def test_documents_are_ranked(url: str, plain: PlainHTTP, top_n: int | None) -> None:
    found = reranker(url, top_n=top_n).compress_documents(DOCUMENTS, QUERY)

    assert_ranked(pairs(found), plain.scores(QUERY, PASSAGES), top_n)
    assert [document.page_content for document in found] == [PASSAGES[index] for index, _ in pairs(found)]


async def test_async_calls_rank(url: str, plain: PlainHTTP) -> None:
    found = await reranker(url).acompress_documents(DOCUMENTS, QUERY)

    assert_ranked(pairs(found), plain.scores(QUERY, PASSAGES), 3)  # its own top_n


def test_fields_of_objects_are_ranked(url: str, plain: PlainHTTP) -> None:
    documents = [{"body": passage, "note": "Bread."} for passage in PASSAGES]

    found = reranker(url).rerank(documents, QUERY, rank_fields=["body"], top_n=None, max_tokens_per_doc=4000)

    # It sends them as YAML, which changes the scores and not the best one.
    assert found[0]["index"] == 2
    assert sorted(result["index"] for result in found) == list(range(len(PASSAGES)))


def test_errors_have_coheres_classes(url: str) -> None:
    with pytest.raises(cohere.NotFoundError):
        reranker(url, model="no-such-model").compress_documents(DOCUMENTS, QUERY)
    with pytest.raises(cohere.BadRequestError):
        reranker(url).compress_documents(DOCUMENTS, "")


def test_an_empty_document_is_ranked(url: str) -> None:
    documents = [*DOCUMENTS, Document("")]
    assert len(reranker(url, top_n=len(documents)).compress_documents(documents, QUERY)) == len(documents)


def test_no_documents_are_no_request(url: str) -> None:
    assert reranker(f"{url}/nothing-is-here").compress_documents([], QUERY) == []
