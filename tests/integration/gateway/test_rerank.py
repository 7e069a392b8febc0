"""The routes that rerank, each as its own clients expect it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.apis.rerank.schemas import RerankRequest
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.reranking_server import RerankingServer, tokens_of
from torchless.clients.testing import EMBEDDING_MODEL, EmbeddingService
from torchless.clients.testing import RERANKING_MODEL as MODEL
from torchless.contracts.reranking.v1 import reranking_pb2 as pb

QUERY = "swifts sleep"
DOCUMENTS = ["bread needs salt", "swifts sleep", "swifts fly", "cats sleep"]
ORDER = [(1, 1.0), (2, 0.5), (3, 0.5), (0, 0.0)]
"""Documents 2 and 3 tie."""
RAW = [(1, 1.0), (2, 0.0), (3, 0.0), (0, -1.0)]
TOKENS = sum(tokens_of(QUERY, document) for document in DOCUMENTS)
USAGE = {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
COHERE_PATHS = ["/v1/rerank", "/v2/rerank"]
PATHS = [*COHERE_PATHS, "/rerank"]


def rerank(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json={"query": QUERY, "documents": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def order_of(body: Any) -> list[tuple[int, float]]:
    return [(result["index"], result["relevance_score"]) for result in body["results"]]


def documents_of(body: Any) -> list[Any]:
    return [result.get("document") for result in body["results"]]


@pytest.mark.parametrize("path", COHERE_PATHS)
def test_coheres_routes_rank_documents(http: httpx.Client, path: str) -> None:
    body = rerank(http, path, model=MODEL.id)
    assert list(body) == ["id", "results", "meta", "model", "usage"]
    assert order_of(body) == ORDER
    assert all(set(result) == {"index", "relevance_score"} for result in body["results"])
    assert body["meta"] == {"api_version": {"version": path[2]}, "billed_units": {"search_units": 1}}
    assert (body["model"], body["usage"]) == (MODEL.id, USAGE)
    assert body["id"] != rerank(http, path)["id"]


@pytest.mark.parametrize("path", [*COHERE_PATHS, "/rerank"])
def test_header_says_which_revision_scored(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"query": QUERY, "documents": DOCUMENTS})
    assert answer.headers["x-torchless-revision"] == MODEL.revision


def test_search_units_are_hundreds_of_documents(http: httpx.Client) -> None:
    for number, units in ((1, 1), (100, 1), (101, 2)):
        body = rerank(http, "/v2/rerank", documents=["swifts"] * number)
        assert body["meta"]["billed_units"] == {"search_units": units}
        assert [index for index, _ in order_of(body)] == list(range(number))


@pytest.mark.parametrize("path", PATHS)
def test_null_and_unknown_fields_count_as_absent(http: httpx.Client, reranking: RerankingServer, path: str) -> None:
    absent = rerank(http, path)
    names = set(RerankRequest.model_fields) - {"query", "documents"}
    null = rerank(http, path, **dict.fromkeys(names), priority=3, user=None, texts=None)
    assert null["results"] == absent["results"]
    assert reranking.messages[-1] == reranking.messages[-2]


@pytest.mark.parametrize("path", PATHS)
def test_top_n_limits_the_results(http: httpx.Client, path: str) -> None:
    assert order_of(rerank(http, path, top_n=1)) == ORDER[:1]
    assert order_of(rerank(http, path, top_n=3)) == ORDER[:3]
    assert order_of(rerank(http, path, top_n=2_000_000_000)) == ORDER
    assert order_of(rerank(http, path, top_n=0)) == ORDER


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "documents", "number"),
    [
        ({"return_documents": "true", "top_n": "3"}, True, 3),
        ({"return_documents": "False", "top_n": 2.0}, False, 2),
        ({"return_documents": "yes", "top_n": " 1 "}, True, 1),
        ({"return_documents": 0, "top_n": "0"}, False, 4),
        ({"return_documents": 1, "raw_scores": "off", "top_n": True}, True, 1),
    ],
)
def test_booleans_and_numbers_may_be_texts(
    http: httpx.Client, path: str, fields: dict[str, Any], documents: bool, number: int
) -> None:
    body = rerank(http, path, **fields)
    assert order_of(body) == ORDER[:number]
    assert all(("document" in result) is documents for result in body["results"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fields", [{"return_documents": "maybe"}, {"return_documents": 2}, {"top_n": "two"}])
def test_texts_that_mean_neither_are_refused(http: httpx.Client, path: str, fields: dict[str, Any]) -> None:
    answer = http.post(path, json={"query": QUERY, "documents": DOCUMENTS, **fields})
    assert answer.status_code == 400
    assert next(iter(fields)) in answer.text


@pytest.mark.parametrize("path", [*PATHS, "/score"])
def test_content_parts_of_type_text(http: httpx.Client, reranking: RerankingServer, path: str) -> None:
    parts = [{"type": "text", "text": "swifts"}, {"type": "text", "text": "sleep"}]
    query, content = {"content": parts[:1]}, {"content": parts}
    names = ("query", "documents") if path != "/score" else ("queries", "documents")
    for documents in ([content, "bread"], content):
        answer = http.post(path, json={names[0]: query, names[1]: documents, "return_documents": True})
        assert answer.status_code == 200, answer.text
        (sent,) = reranking.messages[-1].queries
        assert sent.query == "swifts"
        assert sent.documents[0] == "swifts\nsleep"
        if path != "/score":
            assert answer.json()["results"][0]["document"] == {"text": "swifts\nsleep"}


@pytest.mark.parametrize("path", [*PATHS, "/score"])
@pytest.mark.parametrize(
    "part",
    [{"type": "image_url", "image_url": {"url": "https://example.com"}}, {"type": "text"}, {"text": "a"}, "a", None],
)
def test_content_parts_of_other_types_are_named(http: httpx.Client, path: str, part: Any) -> None:
    content = {"content": [{"type": "text", "text": "swifts"}, part]}
    query = "queries" if path == "/score" else "query"
    for body, at in (
        ({query: QUERY, "documents": ["a", content]}, "documents[1].content[1]"),
        ({query: content, "documents": ["a"]}, f"{query}.content[1]"),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 400
        assert at in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_a_query_and_a_single_document_as_objects(http: httpx.Client, reranking: RerankingServer, path: str) -> None:
    for documents in ("swifts", {"text": "swifts"}, ["swifts"]):
        rerank(http, path, query={"text": "swifts", "id": "1"}, documents=documents)
        (sent,) = reranking.messages[-1].queries
        assert (sent.query, list(sent.documents)) == ("swifts", ["swifts"])
    answer = http.post(path, json={"query": {"title": "swifts"}, "documents": ["a"]})
    assert (answer.status_code, "query: does not have the field text" in answer.text) == (400, True)


@pytest.mark.parametrize("path", PATHS)
def test_a_single_document_is_ranked(http: httpx.Client, path: str) -> None:
    assert order_of(rerank(http, path, documents=["swifts"])) == [(0, 0.5)]


@pytest.mark.parametrize("path", PATHS)
def test_documents_are_answered_where_they_are_wanted(http: httpx.Client, path: str) -> None:
    as_objects = [{"text": DOCUMENTS[index]} for index, _ in ORDER]
    assert documents_of(rerank(http, path, return_documents=True)) == as_objects
    assert documents_of(rerank(http, path, return_documents=False)) == [None] * 4
    # Cohere returns documents only on request; vLLM, whose requests have no such field, always does.
    assert documents_of(rerank(http, path)) == (as_objects if path == "/rerank" else [None] * 4)


@pytest.mark.parametrize("path", PATHS)
def test_documents_that_are_objects(http: httpx.Client, reranking: RerankingServer, path: str) -> None:
    documents = [{"text": "bread", "page": 3, "tags": ["food"]}, "swifts sleep", {"text": "swifts", "title": "Apus"}]
    body = rerank(http, path, documents=documents, return_documents=True)
    assert list(reranking.messages[-1].queries[0].documents) == ["bread", "swifts sleep", "swifts"]
    assert documents_of(body) == [{"text": "swifts sleep"}, {"text": "swifts", "title": "Apus"}, {"text": "bread"}]


@pytest.mark.parametrize("path", PATHS)
def test_fields_that_make_the_text(http: httpx.Client, reranking: RerankingServer, path: str) -> None:
    documents = [{"text": "swifts", "title": "sleep"}, {"title": "bread"}, "as it is", {"title": None, "text": "cats"}]
    rerank(http, path, documents=documents, rank_fields=["title", "text"])
    sent = list(reranking.messages[-1].queries[0].documents)
    assert sent == ["sleep\nswifts", "bread", "as it is", "cats"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({}, pb.SCORE_FORM_UNIT),
        ({"raw_scores": True}, pb.SCORE_FORM_RAW),
        ({"raw_scores": False, "use_activation": True}, pb.SCORE_FORM_UNIT),
        ({"use_activation": False}, pb.SCORE_FORM_RAW),
        ({"activation": False}, pb.SCORE_FORM_RAW),
        ({"softmax": False}, pb.SCORE_FORM_RAW),
    ],
)
def test_form_of_scores_follows_the_request(
    http: httpx.Client, reranking: RerankingServer, path: str, fields: dict[str, bool], form: int
) -> None:
    body = rerank(http, path, **fields)
    assert order_of(body) == (RAW if form == pb.SCORE_FORM_RAW else ORDER)
    assert reranking.messages[-1].score_form == form


LONG_DOCUMENTS: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (pb.LONG_DOCUMENTS_UNSPECIFIED, 0)),
    ({"max_tokens_per_doc": 4096}, (pb.LONG_DOCUMENTS_UNSPECIFIED, 4096)),
    ({"max_tokens_per_doc": 0, "max_tokens_per_query": 0}, (pb.LONG_DOCUMENTS_UNSPECIFIED, 0)),
    ({"truncate_prompt_tokens": -1}, (pb.LONG_DOCUMENTS_CUT, 0)),
    ({"truncate_prompt_tokens": -1, "truncation_side": "left"}, (pb.LONG_DOCUMENTS_CUT_START, 0)),
    ({"truncation_side": "left"}, (pb.LONG_DOCUMENTS_UNSPECIFIED, 0)),
]


@pytest.mark.parametrize("path", [*PATHS, "/score"])
@pytest.mark.parametrize(("fields", "expected"), LONG_DOCUMENTS)
def test_options_choose_how_long_documents_are_read(
    http: httpx.Client, reranking: RerankingServer, path: str, fields: dict[str, Any], expected: tuple[int, int]
) -> None:
    query = "queries" if path == "/score" else "query"
    assert http.post(path, json={query: QUERY, "documents": DOCUMENTS, **fields}).status_code == 200
    sent = reranking.messages[-1]
    assert (sent.long_documents, sent.max_tokens_per_doc) == expected


def test_rerank_with_documents_answers_as_jina(http: httpx.Client) -> None:
    before = int(time.time())
    body = rerank(http, "/rerank", model=MODEL.id, top_n=0)
    assert list(body) == ["object", "id", "created", "model", "results", "usage"]
    assert (body["object"], body["model"], body["usage"]) == ("rerank", MODEL.id, USAGE)
    assert before <= body["created"] <= time.time()
    assert order_of(body) == ORDER


def test_the_default_request_of_infinitys_client_is_answered(http: httpx.Client) -> None:
    unsaid = {"return_documents": False, "raw_scores": False, "model": "default/not-specified"}
    assert documents_of(rerank(http, "/rerank", **unsaid)) == [None] * 4
    asked = rerank(http, "/rerank", **{**unsaid, "return_documents": True})
    assert documents_of(asked) == [DOCUMENTS[index] for index, _ in ORDER]


def test_litellm_gets_an_answer_that_both_of_its_readings_take(http: httpx.Client) -> None:
    headers = {"user-agent": "litellm/1.83.0"}
    sent = {"query": QUERY, "documents": DOCUMENTS, "return_documents": True}
    for path, documents in (("/rerank", False), ("/v1/rerank", True), ("/v2/rerank", True)):
        body = http.post(path, json=sent, headers=headers).json()
        assert order_of(body) == ORDER
        assert all(("document" in result) is documents for result in body["results"])


def test_rerank_with_texts_answers_as_tei(http: httpx.Client) -> None:
    sent = {"query": QUERY, "texts": DOCUMENTS}
    answer = http.post("/rerank", json=sent)
    assert answer.json() == [{"index": index, "score": score} for index, score in ORDER]
    timings = {"total-time": "7", "tokenization-time": "2", "queue-time": "1", "inference-time": "4"}
    for name, value in {**timings, "compute-tokens": str(TOKENS)}.items():
        assert answer.headers[f"x-{name}"] == value
    nulls = dict.fromkeys(["truncate", "truncation_direction", "raw_scores", "return_text", "top_n", "documents"])
    assert http.post("/rerank", json={**sent, **nulls}).json() == answer.json()
    with_text = http.post("/rerank", json={**sent, "raw_scores": True, "return_text": True, "top_n": 2}).json()
    assert with_text == [{"index": index, "score": score, "text": DOCUMENTS[index]} for index, score in RAW[:2]]


@pytest.mark.parametrize(
    ("fields", "long_documents"),
    [
        ({}, pb.LONG_DOCUMENTS_CUT),
        ({"truncate": True}, pb.LONG_DOCUMENTS_CUT),
        ({"truncate": True, "truncation_direction": "Left"}, pb.LONG_DOCUMENTS_CUT_START),
        ({"truncate": None, "truncation_direction": "left"}, pb.LONG_DOCUMENTS_CUT_START),
        ({"truncate": False, "truncation_direction": "Right"}, pb.LONG_DOCUMENTS_REFUSE),
    ],
)
def test_truncation_of_texts_follows_the_request(
    http: httpx.Client, reranking: RerankingServer, fields: dict[str, Any], long_documents: int
) -> None:
    assert http.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, **fields}).status_code == 200
    assert reranking.messages[-1].long_documents == long_documents


def test_texts_are_not_cut_where_the_gateway_is_told_so(gateway: Gateway, reranking: RerankingServer) -> None:
    long = " ".join(["word"] * 100)
    with gateway(reranking={"address": reranking.address}, limits={"truncate": False}) as http:
        refused = http.post("/rerank", json={"query": QUERY, "texts": ["one", long]})
        assert http.post("/rerank", json={"query": QUERY, "texts": [long], "truncate": True}).status_code == 200
    assert (refused.status_code, refused.json()["error_type"]) == (413, "Validation")
    assert refused.json()["error"].startswith("texts[1]:")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": QUERY}, "texts, documents: send exactly one of texts and documents"),
        ({"query": QUERY, "texts": None, "documents": None}, "texts, documents: send exactly one"),
        ({"query": QUERY, "texts": DOCUMENTS, "documents": DOCUMENTS}, "texts, documents: send exactly one"),
        ([], "should be"),
        ("text", "should be"),
    ],
)
def test_a_body_of_neither_form_or_both(http: httpx.Client, body: Any, said: str) -> None:
    answer = http.post("/rerank", json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
    assert said in answer.json()["error"]
    assert order_of(rerank(http, "/rerank")) == ORDER


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
def test_scores_of_one_with_each(http: httpx.Client, reranking: RerankingServer, path: str, names: Any) -> None:
    for query in (QUERY, [QUERY]):
        body = http.post(path, json=dict(zip(names, (query, DOCUMENTS), strict=True))).json()
        assert list(body) == ["id", "object", "created", "model", "data", "usage"]
        scores = [0.0, 1.0, 0.5, 0.5]
        assert body["data"] == [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)]
        assert (body["object"], body["model"], body["usage"]) == ("list", MODEL.id, USAGE)
        (sent,) = reranking.messages[-1].queries
        assert (sent.query, list(sent.documents)) == (QUERY, DOCUMENTS)


def test_scores_pair_by_pair_in_one_call(http: httpx.Client, reranking: RerankingServer) -> None:
    body = {"text_1": ["a b", "a b", "c"], "text_2": ["b", "x", "c"]}
    scores = [entry["score"] for entry in http.post("/score", json=body).json()["data"]]
    assert scores == [0.5, 0.0, 1.0]
    (sent,) = reranking.messages
    assert [(query.query, list(query.documents)) for query in sent.queries] == [
        ("a b", ["b"]),
        ("a b", ["x"]),
        ("c", ["c"]),
    ]
    one = http.post("/score", json={"text_1": "a b", "text_2": "b", "use_activation": None}).json()["data"]
    assert one == [{"index": 0, "object": "score", "score": 0.5}]
    raw = http.post("/score", json={"text_1": "a b", "text_2": "x", "use_activation": False}).json()["data"]
    assert raw[0]["score"] == -1.0


def test_ties_keep_their_order_however_many_there_are(http: httpx.Client) -> None:
    documents = ["swifts" if index % 3 else "nothing" for index in range(300)]
    tied = [index for index in range(300) if index % 3] + [index for index in range(300) if index % 3 == 0]
    for path in PATHS:
        assert [index for index, _ in order_of(rerank(http, path, documents=documents))] == tied
    ranks = http.post("/rerank", json={"query": QUERY, "texts": documents}).json()
    assert [rank["index"] for rank in ranks] == tied


def test_aliases_and_the_model_of_texts(gateway: Gateway, reranking: RerankingServer) -> None:
    models = {"rerank_aliases": {"rerank-v3.5": "", "words": MODEL.id}, "aliases": {"embeds": MODEL.id}}
    settings: dict[str, Any] = {"reranking": {"address": reranking.address}, "models": models}
    with gateway(**settings, tei={"rerank_model": "words"}) as http:
        for name in (MODEL.id, "rerank-v3.5", "words", "default/not-specified", "", None):
            assert rerank(http, "/v2/rerank", model=name)["model"] == MODEL.id
        assert http.post("/v2/rerank", json={"query": "a", "documents": ["b"], "model": "embeds"}).status_code == 404
        assert http.post("/rerank", json={"query": "a", "texts": ["b"]}).status_code == 200
        assert reranking.messages[-1].model == MODEL.id
    with gateway(**settings, tei={"rerank_model": "no/such"}) as http:
        answer = http.post("/rerank", json={"query": "a", "texts": ["b"]})
        assert (answer.status_code, answer.json()["error_type"]) == (404, "Validation")


def test_models_that_rerank_are_listed(http: httpx.Client) -> None:
    for path in ("/v1/models", "/models"):
        listed = http.get(path).json()["data"]
        assert [(entry["id"], entry["capabilities"]) for entry in listed] == [
            (EMBEDDING_MODEL.id, ["embed"]),
            (MODEL.id, ["rerank"]),
        ]
        assert listed[1]["created"] == MODEL.created
    assert http.get(f"/v1/models/{MODEL.id}").json()["capabilities"] == ["rerank"]
    assert http.get("/info").json()["model_id"] == EMBEDDING_MODEL.id


def test_models_that_embed_are_listed_without_the_others(
    gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer, free_address: str
) -> None:
    for address in ("", free_address, reranking.address):
        reranking.latency_s = 60
        settings = {"embedding": {"address": embedding.address}, "health": {"timeout_s": 0.2}}
        with gateway(**settings, reranking={"address": address}) as http:
            for path in ("/v1/models", "/models"):
                assert [entry["id"] for entry in http.get(path).json()["data"]] == [EMBEDDING_MODEL.id]
            assert http.get(f"/v1/models/{EMBEDDING_MODEL.id}").status_code == 200
            # It may be a model of the service that is out; where there is none, it is not.
            assert http.get(f"/v1/models/{MODEL.id}").status_code == (503 if address else 404)


def test_a_model_that_both_services_serve_is_listed_once(
    gateway: Gateway, embedding: EmbeddingService, reranking: RerankingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "model", replace(MODEL, id=EMBEDDING_MODEL.id, created=5, revision="2"))
    with gateway(embedding={"address": embedding.address}, reranking={"address": reranking.address}) as http:
        (entry,) = http.get("/v1/models").json()["data"]
        assert (entry["id"], entry["capabilities"]) == (EMBEDDING_MODEL.id, ["embed", "rerank"])
        assert entry["revisions"] == {"embed": EMBEDDING_MODEL.revision, "rerank": "2"}


def test_the_deadline_is_that_of_reranking(
    gateway: Gateway, http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer
) -> None:
    # gRPC rounds deadlines up on the wire, those of about a hundred seconds to whole ones.
    for path in (*PATHS, "/score"):
        sides = {"queries": "a", "documents": ["b"]} if path == "/score" else {"query": "a", "documents": ["b"]}
        http.post(path, json=sides)
        assert 55 < (reranking.requests[-1].deadline_s or 0) < 60.1
        http.post(path, json=sides, headers={"x-request-timeout-s": "7"})
        assert 5 < (reranking.requests[-1].deadline_s or 0) < 7.1
    http.post("/embed", json={"inputs": "one"})
    assert (embedding.requests[-1].deadline_s or 99) < 30.1
    settings: dict[str, Any] = {"reranking": {"address": reranking.address, "deadline_s": 200}}
    with gateway(**settings, limits={"max_deadline_s": 100}) as capped:
        capped.post("/rerank", json={"query": "a", "texts": ["b"]})
        assert 90 < (reranking.requests[-1].deadline_s or 0) < 101.1


def test_request_id_trace_and_deadline_travel_to_the_service(http: httpx.Client, reranking: RerankingServer) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    http.post("/rerank", json={"query": "a", "texts": ["b"]}, headers={"x-request-id": "r-1", "traceparent": trace})
    assert reranking.requests[-1].metadata["x-request-id"] == "r-1"
    assert reranking.requests[-1].metadata["traceparent"] == trace
