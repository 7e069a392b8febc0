"""What is wrong with a request that reranks gets its family's status and body, and the next good request works."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import HEADERS, Gateway
from tests.integration.gateway.error_bodies import message_of
from tests.integration.gateway.reranking_server import RerankingServer
from tests.waiting import wait_until
from torchless.contracts.errors import ErrorKind, TorchlessError, input_too_large, invalid_input


@dataclass(frozen=True)
class Route:
    """A route that reranks, and how its clients call it."""

    path: str
    family: str
    query: str
    documents: str
    malformed: int = 400

    def post(self, http: httpx.Client, query: Any = "a", documents: Any = ("b",), **more: Any) -> httpx.Response:
        given = documents if not isinstance(documents, tuple) else list(documents)
        headers = more.pop("headers", None)
        return http.post(self.path, json={self.query: query, self.documents: given, **more}, headers=headers)


ROUTES = {
    "cohere 1": Route("/v1/rerank", "cohere", "query", "documents"),
    "cohere 2": Route("/v2/rerank", "cohere", "query", "documents"),
    "documents": Route("/rerank", "shared", "query", "documents"),
    "texts": Route("/rerank", "tei", "query", "texts", malformed=422),
    "pairs": Route("/score", "vllm", "text_1", "text_2"),
}


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> Route:
    return ROUTES[request.param]


def refused(route: Route, answer: httpx.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert said in message_of(route.family, answer)


@pytest.mark.parametrize(
    ("query", "documents", "at"),
    [("a", [], "{documents}"), ("", ["b"], "{query}")],
)
def test_empty_texts_are_refused(http: httpx.Client, route: Route, query: str, documents: list[str], at: str) -> None:
    answer = route.post(http, query, documents)
    refused(route, answer, 400, at.format(query=route.query, documents=route.documents) + ":")
    if route.family == "tei":
        assert answer.json()["error_type"] == "Empty"
    assert route.post(http).status_code == 200


def test_as_many_documents_as_are_taken_and_one_more(
    http: httpx.Client, reranking: RerankingServer, route: Route
) -> None:
    assert route.post(http, documents=["b"] * 10_000).status_code == 200
    assert len(reranking.messages[-1].queries[0].documents) == 10_000
    too_many = 413 if route.family == "tei" else 400
    refused(route, route.post(http, documents=["b"] * 10_001), too_many, f"{route.documents}: holds 10001 texts; ")
    assert len(reranking.messages) == 1
    assert route.post(http).status_code == 200


def test_a_document_and_a_query_of_megabytes(http: httpx.Client, reranking: RerankingServer, route: Route) -> None:
    assert route.post(http, "x" * 3_000_000, ["b", "x" * 9_000_000]).status_code == 200
    (query,) = reranking.messages[-1].queries
    assert (len(query.query), len(query.documents[1])) == (3_000_000, 9_000_000)


def test_an_empty_document_is_scored(http: httpx.Client, reranking: RerankingServer, route: Route) -> None:
    assert route.post(http, "a", ["b", ""]).status_code == 200
    assert list(reranking.messages[-1].queries[0].documents) == ["b", ""]


@pytest.mark.parametrize("documents", [1, True, {}, [1], ["b", None], [["b"]], ["b", 2.5]])
def test_documents_of_wrong_types(http: httpx.Client, route: Route, documents: Any) -> None:
    refused(route, route.post(http, documents=documents), route.malformed, route.documents)
    assert route.post(http).status_code == 200


@pytest.mark.parametrize("query", [1, True, {}, [1], [["b"]], None])
def test_queries_of_wrong_types(http: httpx.Client, route: Route, query: Any) -> None:
    refused(route, route.post(http, query), route.malformed, route.query)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"query": "\\ud800"}', b"[" * 100_000, b"{}"]
)
def test_a_body_that_is_no_request(http: httpx.Client, route: Route, body: bytes) -> None:
    answer = http.post(route.path, content=body)
    # A body of no known form gets text-embeddings-inference's error, with Jina's `detail`.
    family, status = ("undecided", 422) if route.path == "/rerank" else (route.family, route.malformed)
    assert answer.status_code == status
    assert message_of(family, answer)
    assert route.post(http).status_code == 200


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("cohere 2", {"top_n": -1}, "top_n"),
        ("cohere 2", {"top_n": 1.5}, "top_n"),
        ("cohere 1", {"max_chunks_per_doc": 1}, "max_chunks_per_doc: is not supported"),
        ("cohere 2", {"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ("cohere 1", {"rank_fields": []}, "rank_fields"),
        ("cohere 1", {"rank_fields": "title"}, "rank_fields"),
        ("cohere 1", {"return_documents": "maybe"}, "return_documents"),
        ("cohere 1", {"documents": [{"title": "b"}]}, "documents[0]: does not have the field text"),
        ("cohere 1", {"documents": ["b", {"text": 3}]}, "documents[1].text: must be a text"),
        (
            "cohere 1",
            {"documents": [{"text": "b"}], "rank_fields": ["title"]},
            "documents[0]: does not have any of the fields in rank_fields",
        ),
        ("documents", {"top_n": -1}, "top_n"),
        ("documents", {"raw_scores": 2}, "raw_scores"),
        ("documents", {"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ("texts", {"top_n": -1}, "top_n"),
        ("texts", {"truncation_direction": "Up"}, "truncation_direction"),
        ("texts", {"texts": [{"text": "b"}]}, "texts[0]"),
        ("pairs", {"text_1": ["a", "b"]}, "text_1: holds 2 texts but text_2 holds 1"),
        ("pairs", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1: holds 2 texts but text_2 holds 3"),
        ("pairs", {"text_1": []}, "text_1: is empty"),
        ("pairs", {"text_1": None}, "text_2: give exactly two sides"),
        ("pairs", {"queries": "c"}, "queries, text_1, text_2: give exactly two sides"),
        ("pairs", {"text_1": None, "text_2": None}, "give exactly two sides: text_1 and text_2, or queries and"),
        ("pairs", {"text_1": ["a", ""], "text_2": ["a", "b"]}, "text_1[1]: has no characters"),
    ],
)
def test_fields_that_are_refused(http: httpx.Client, name: str, fields: dict[str, Any], said: str) -> None:
    route = ROUTES[name]
    refused(route, route.post(http, **fields), route.malformed, said)
    assert route.post(http).status_code == 200


def test_unknown_model_is_not_found(http: httpx.Client, route: Route) -> None:
    answer = route.post(http, model="no/such")
    if route.family == "tei":
        # Its requests name no model, so no API reads this field.
        assert answer.status_code == 200
        return
    refused(route, answer, 404, "no/such")
    assert route.post(http).status_code == 200


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_an_error_and_no_order(
    http: httpx.Client, reranking: RerankingServer, route: Route, broken: float
) -> None:
    reranking.broken_score = broken
    status = 424 if route.family == "tei" else 500
    refused(route, route.post(http), status, "the model returned scores that are not finite")
    reranking.broken_score = None
    assert route.post(http).status_code == 200


STATUSES = {
    ErrorKind.OVERLOADED: 429,
    ErrorKind.GPU_UNAVAILABLE: 503,
    ErrorKind.MODEL_UNAVAILABLE: 503,
    ErrorKind.LOADING: 503,
    ErrorKind.UNREACHABLE: 503,
    ErrorKind.DEADLINE: 504,
    ErrorKind.INTERNAL: 500,
    ErrorKind.INPUT_TOO_LARGE: 400,
    ErrorKind.INVALID_INPUT: 400,
}
TEI_STATUSES = {**STATUSES, ErrorKind.INTERNAL: 424, ErrorKind.INVALID_INPUT: 413, ErrorKind.INPUT_TOO_LARGE: 413}


@pytest.mark.parametrize("kind", STATUSES)
def test_errors_of_the_service(http: httpx.Client, reranking: RerankingServer, route: Route, kind: ErrorKind) -> None:
    status = (TEI_STATUSES if route.family == "tei" else STATUSES)[kind]
    reranking.error = TorchlessError(kind, "as the service says", retry_after_s=2.2)
    answer = route.post(http)
    refused(route, answer, status, "as the service says")
    assert answer.headers.get("retry-after") == ("3" if status in {429, 503} else None)
    if route.family in {"shared", "vllm"} and kind is ErrorKind.GPU_UNAVAILABLE:
        assert answer.json()["error"]["code"] == "gpu_unavailable"
    reranking.error = None
    assert route.post(http).status_code == 200


FIELDS: list[tuple[str, Callable[[Route], str]]] = [
    ("queries[0].query", lambda route: route.query),
    ("queries[0].documents[1]", lambda route: f"{route.documents}[1]"),
    ("queries[0].documents", lambda route: route.documents),
    ("queries[0]", lambda route: route.documents),
    ("queries", lambda route: route.documents),
    ("max_tokens_per_doc", lambda route: "max_tokens_per_doc"),
]


@pytest.mark.parametrize(("of_service", "of_caller"), FIELDS)
def test_errors_name_the_callers_field(
    http: httpx.Client, reranking: RerankingServer, route: Route, of_service: str, of_caller: Callable[[Route], str]
) -> None:
    reranking.error = input_too_large(of_service, "is too much")
    answer = route.post(http, documents=["b", "c"])
    assert message_of(route.family, answer) == f"{of_caller(route)}: is too much"
    if route.family in {"shared", "vllm"}:
        assert answer.json()["error"]["param"] == of_caller(route)


def test_errors_about_pairs_name_the_pair(http: httpx.Client, reranking: RerankingServer) -> None:
    body = {"queries": ["a", "b"], "items": ["c", "d"]}
    for of_service, said in (("queries[1].query", "queries[1]"), ("queries[1].documents[0]", "items[1]")):
        reranking.error = invalid_input(of_service, "is wrong")
        assert http.post("/score", json=body).json()["error"]["message"] == f"{said}: is wrong"


def test_without_a_reranking_service(gateway: Gateway, route: Route, free_address: str) -> None:
    with gateway(reranking={"address": ""}) as http:
        answer = route.post(http)
        refused(route, answer, 503, "set reranking.address in the gateway's settings")
        assert int(answer.headers["retry-after"]) >= 1
        assert "reranking" not in http.get("/health/ready").json()["services"]
    with gateway(reranking={"address": free_address}) as http:
        answer = route.post(http, headers={"x-request-timeout-s": "20"})
        refused(route, answer, 503, "the reranking service cannot be reached")
        assert free_address not in answer.text
        assert http.get("/health/ready").json()["services"]["reranking"]["ready"] is False


def test_a_deadline_is_kept(http: httpx.Client, reranking: RerankingServer, route: Route) -> None:
    reranking.latency_s = 60
    answer = route.post(http, headers={"x-request-timeout-s": "0.2"})
    refused(route, answer, 504, "")
    wait_until(lambda: reranking.cancelled > 0, within_s=10)
    reranking.reset()
    assert route.post(http).status_code == 200


def test_a_caller_that_hangs_up_is_not_worked_for(http: httpx.Client, reranking: RerankingServer, route: Route) -> None:
    body = json.dumps({route.query: "a", route.documents: ["b"]}).encode()
    reranking.latency_s = 60
    head = f"POST {route.path} HTTP/1.1\r\n{HEADERS}content-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head + body)
        wait_until(lambda: reranking.in_flight > 0, within_s=10)
    wait_until(lambda: reranking.cancelled > 0, within_s=10)
    reranking.reset()
    assert route.post(http).status_code == 200


def test_a_body_that_is_too_large(gateway: Gateway, reranking: RerankingServer, route: Route) -> None:
    with gateway(reranking={"address": reranking.address}, limits={"body_mib": 0.01}) as http:
        answer = route.post(http, documents=["b" * 20_000])
        # Its form is not known yet.
        family = "undecided" if route.path == "/rerank" else route.family
        assert answer.status_code == 413
        assert "0.01 MiB" in message_of(family, answer)
        assert route.post(http).status_code == 200


def test_a_method_that_a_route_does_not_answer(http: httpx.Client, route: Route) -> None:
    answer = http.put(route.path, content=b"{}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert message_of("undecided" if route.path == "/rerank" else route.family, answer)
