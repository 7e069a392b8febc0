"""Every request field of the imitated APIs is obeyed, refused or without effect, as the documentation says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from docs.request_fields import FIELDS
from gateway.apis.known_fields import KnownFields
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.clients.testing import EmbeddingService

CHANGES_WITH_EVERY_ANSWER = {"id", "created"}
OPENAI = {"/v1/embeddings", "/embeddings"}


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(path, known.base, name, value, id=f"{path}-{known.api}-{name}")
        for known in FIELDS
        for path in known.paths
        for name, value in getattr(known, kind).items()
    ]


class Outcomes:
    """What requests lead to: the status, the answer, and what the services received."""

    def __init__(self, http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer) -> None:
        self._http = http
        self._services = (embedding, reranking)

    def of(self, path: str, body: Mapping[str, Any]) -> tuple[httpx.Response, Any]:
        for service in self._services:
            service.requests.clear()
        answer = self._http.post(path, json=body)
        content = answer.json()
        if isinstance(content, dict):
            content = {name: value for name, value in content.items() if name not in CHANGES_WITH_EVERY_ANSWER}
        received = [message.SerializeToString() for service in self._services for message in service.messages]
        return answer, (answer.status_code, content, received)


@pytest.fixture
def outcomes(http: httpx.Client, embedding: EmbeddingService, reranking: RerankingServer) -> Outcomes:
    return Outcomes(http, embedding, reranking)


@pytest.mark.parametrize(("path", "base", "name", "value"), cases("obeyed"))
def test_obeyed_fields_change_the_result(
    outcomes: Outcomes, path: str, base: Mapping[str, Any], name: str, value: Any
) -> None:
    without, before = outcomes.of(path, base)
    answer, after = outcomes.of(path, {**base, name: value})
    assert without.status_code == 200, without.text
    # The model may be one that is not served, and a text one that may not be truncated.
    allowed = {200, *{"model": {404}, "truncate": {400, 413}}.get(name, ())}
    assert answer.status_code in allowed, answer.text
    # The default is to truncate, so only a gateway that refuses shows this one: see test_truncation.py.
    assert after != before or (path in OPENAI and name == "truncate_prompt_tokens")


@pytest.mark.parametrize(("path", "base", "name", "value"), cases("refused"))
def test_refused_fields_are_named(
    outcomes: Outcomes, path: str, base: Mapping[str, Any], name: str, value: Any
) -> None:
    answer, (status, _, received) = outcomes.of(path, {**base, name: value})
    assert status in {400, 422}, answer.text
    assert name in answer.text
    assert received == []


@pytest.mark.parametrize(("path", "base", "name", "value"), cases("harmless"))
def test_harmless_fields_change_nothing(
    outcomes: Outcomes, path: str, base: Mapping[str, Any], name: str, value: Any
) -> None:
    _, before = outcomes.of(path, base)
    answer, after = outcomes.of(path, {**base, name: value})
    assert answer.status_code == 200, answer.text
    assert after == before


def test_every_api_is_listed_on_each_route() -> None:
    assert {known.api for known in FIELDS} >= {"OpenAI", "TEI", "Cohere", "Jina", "vLLM", "infinity"}
    assert all(isinstance(known, KnownFields) and known.obeyed for known in FIELDS)
