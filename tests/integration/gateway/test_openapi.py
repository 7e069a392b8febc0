"""The gateway against its own OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

SHORT_S = 5.0


def no_unexplained_server_error(context: Any, response: Any, case: Any) -> None:
    """No 5xx, except for a deadline that the case sets; within a short one, no service may be ready."""
    late = 503 if "/health" in case.path or case.path.endswith("/ping") else 504
    if response.status_code == late and float(case.headers["x-request-timeout-s"]) < SHORT_S:
        return
    assert response.status_code < 500, response.text


CHECKS = [
    no_unexplained_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture
def api(http: httpx.Client) -> Any:
    """The document as schemathesis reads it."""
    schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
    schema.config.update(base_url=str(http.base_url))
    return schema


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.timeout(120)
def test_answers_match_the_document(api: Any) -> None:
    tested = 0
    for result in api.get_all_operations():
        operation = result.ok()
        if operation.path == "/v1/gpu/watch":  # has no end to read to
            continue

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @_given(operation)  # type: ignore[untyped-decorator]
        def every_case(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=20)

        every_case()
        tested += 1
    assert tested >= 22


def _given(operation: Any) -> Any:
    from hypothesis import given

    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    strategy = operation.as_strategy(generation_mode=modes[0])
    if operation.method.upper() == "POST":
        strategy |= operation.as_strategy(generation_mode=modes[1])
    return given(case=strategy)


def test_every_route_documents_malformed_headers_and_defects(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    told = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path == "/metrics":  # reads no headers
                continue
            answer = http.request(method, re.sub(r"{\w+}", "x", path), headers={"x-request-timeout-s": "soon"})
            assert answer.status_code in {400, 422}, path
            assert {str(answer.status_code), "500"} <= set(operation["responses"]), path
            assert "x-request-timeout-s" in {parameter["name"] for parameter in operation["parameters"]}, path
            told += 1
    assert told >= 22


def test_the_watch_is_documented_as_an_event_stream(http: httpx.Client) -> None:
    operation = http.get("/openapi.json").json()["paths"]["/v1/gpu/watch"]["get"]
    answers = {status: set(answer["content"]) for status, answer in operation["responses"].items()}
    error = {"application/json"}
    assert answers.pop("200") == {"text/event-stream"}
    assert answers == dict.fromkeys(("400", "401", "403", "429", "500", "503", "504"), error)
    interval = next(each for each in operation["parameters"] if each["name"] == "interval_s")
    assert (interval["in"], interval["required"], interval["schema"]["type"]) == ("query", False, "number")
    with http.stream("GET", "/v1/gpu/watch") as answer:
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    refused = http.get("/v1/gpu/watch", params={"interval_s": "soon"})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/json")


def test_every_reference_has_a_component(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def references(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(document))
    assert found
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= set(schemas)
