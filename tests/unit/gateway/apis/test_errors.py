"""Every kind of error has a status and a body in every API family."""

from __future__ import annotations

import orjson
import pytest

from gateway.apis.cohere.errors import COHERE
from gateway.apis.families import family_of
from gateway.apis.openai.errors import OPENAI
from gateway.apis.rerank.errors import RERANK_DOCUMENTS, RERANK_UNDECIDED
from gateway.apis.tei.errors import TEI
from gateway.apis.vllm.errors import VLLM
from gateway.capabilities.errors import EmptyInputError, UntokenizableInputError
from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import (
    GatewayDefectError,
    UndecodableBodyError,
    body_too_large,
    malformed,
    method_not_allowed,
    not_json,
    unknown_route,
    unsupported_coding,
)
from torchless.contracts.errors import (
    ErrorKind,
    ResourceType,
    TorchlessError,
    input_too_large,
    invalid_input,
    not_found,
)

FAMILIES = [OPENAI, TEI, COHERE, RERANK_DOCUMENTS, VLLM]
OWN = [
    body_too_large(32.0),
    EmptyInputError(("input",), "is empty"),
    GatewayDefectError(),
    malformed("body", "no"),
    method_not_allowed("POST"),
    unknown_route("/nope"),
    UntokenizableInputError(invalid_input("ids", "no")),
    UndecodableBodyError(),
    not_json(),
    unsupported_coding(["gzip"]),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("error", [*(TorchlessError(kind, "why") for kind in ErrorKind), *OWN], ids=repr)
def test_body_and_status_are_the_familys(family: ErrorFamily, error: TorchlessError) -> None:
    answer = family.answer(error)
    body = orjson.loads(answer.body)
    family.schema.model_validate(body, extra="forbid")
    assert 400 <= answer.status_code < 600
    assert error.message.encode() in answer.body
    assert ("retry-after" in answer.headers) == (answer.status_code in {429, 503})
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


@pytest.mark.parametrize("kind", ErrorKind)
def test_plain_families_follow_the_table(kind: ErrorKind) -> None:
    error = TorchlessError(kind, "why")
    status = 400 if kind is ErrorKind.INPUT_TOO_LARGE else kind.policy.http_status
    assert {family.status(error) for family in FAMILIES if family is not TEI} == {status}


def test_only_a_body_that_is_too_large_gets_413_except_at_text_embeddings_inference() -> None:
    assert {family.status(body_too_large(32.0)) for family in FAMILIES} == {413}
    too_many = orjson.loads(OPENAI.answer(input_too_large("input", "holds 3 inputs")).body)["error"]
    assert (too_many["type"], too_many["param"]) == ("invalid_request_error", "input")
    assert TEI.status(input_too_large("inputs", "holds 3 inputs")) == 413


def test_text_embeddings_inferences_statuses() -> None:
    statuses = [TEI.status(error) for error in OWN]
    assert statuses == [413, 400, 500, 422, 405, 404, 422, 422, 415, 415]
    assert TEI.status(TorchlessError(ErrorKind.INTERNAL, "why")) == 424
    assert TEI.status(invalid_input("dimensions", "no")) == 413


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/embeddings", OPENAI),
        ("/v1/anything", OPENAI),
        ("/models", OPENAI),
        ("/v1/embed", COHERE),
        ("/v2/embed", COHERE),
        ("/v1/rerank", COHERE),
        ("/v2/rerank", COHERE),
        ("/score", VLLM),
        ("/v1/score", VLLM),
        ("/rerank", RERANK_UNDECIDED),
        ("/embed", TEI),
        ("/", TEI),
    ],
)
def test_paths_have_families(path: str, family: ErrorFamily) -> None:
    assert family_of(path) is family


def test_a_missing_model_and_a_missing_route_differ() -> None:
    model = orjson.loads(OPENAI.answer(not_found(ResourceType.MODEL, "m", "why")).body)["error"]
    route = orjson.loads(OPENAI.answer(unknown_route("/nope")).body)["error"]
    assert (model["code"], model["param"]) == ("model_not_found", "model")
    assert (route["code"], route["param"]) == ("not_found", None)
