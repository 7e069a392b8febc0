"""The error tables are total, and an error survives the wire."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from torchless.contracts.errors import (
    CALLERS_FAULT,
    GRPC_STATUS,
    HTTP_STATUS,
    KIND_OF_GRPC_STATUS,
    ErrorKind,
    FieldViolation,
    TorchlessError,
)
from torchless.contracts.grpc_status import from_status, to_status

text = st.text(st.characters(codec="utf-8"), max_size=50)


def test_every_kind_has_a_grpc_and_an_http_status() -> None:
    assert set(GRPC_STATUS) == set(HTTP_STATUS) == set(ErrorKind)


def test_every_grpc_status_but_ok_maps_back() -> None:
    assert set(KIND_OF_GRPC_STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("kind", ErrorKind)
def test_a_kind_that_has_its_status_to_itself_maps_back_to_itself(kind: ErrorKind) -> None:
    sharing = [each for each in ErrorKind if GRPC_STATUS[each] is GRPC_STATUS[kind]]
    assert KIND_OF_GRPC_STATUS[GRPC_STATUS[kind]] in sharing


def test_callers_faults_are_exactly_the_4xx_that_are_not_about_load() -> None:
    load = {ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED}
    assert {kind for kind in ErrorKind if 400 <= HTTP_STATUS[kind] < 500} - load == CALLERS_FAULT


@given(
    st.sampled_from(ErrorKind),
    text,
    st.lists(st.tuples(text, text), max_size=3),
    st.none() | st.floats(0, 1e6),
    st.dictionaries(text, text, max_size=3),
)
def test_an_error_survives_the_wire(
    kind: ErrorKind, message: str, fields: list[tuple[str, str]], retry: float | None, metadata: dict[str, str]
) -> None:
    violations = tuple(FieldViolation(*each) for each in fields)
    sent = TorchlessError(kind, message, violations=violations, retry_after_s=retry, metadata=metadata)
    got = from_status(Status.FromString(to_status(sent).SerializeToString()))
    assert (got.kind, got.message, got.violations, got.metadata) == (kind, message, violations, metadata)
    assert got.retry_after_s == pytest.approx(retry, abs=1e-6)


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_a_status_of_another_domain_gets_the_kind_of_its_code(code: grpc.StatusCode) -> None:
    status = Status(code=code.value[0], message="foreign")
    foreign = Any()
    foreign.Pack(ErrorInfo(reason="RATE_LIMITED", domain="elsewhere.example"))
    status.details.append(foreign)
    assert from_status(status).kind is KIND_OF_GRPC_STATUS[code]


def test_details_that_cannot_be_read_are_passed_over() -> None:
    broken = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")
    assert from_status(Status(code=5, message="m", details=[broken])).kind is ErrorKind.NOT_FOUND


def test_an_unknown_code_is_internal() -> None:
    assert from_status(Status(code=99, message="m")).kind is ErrorKind.INTERNAL
