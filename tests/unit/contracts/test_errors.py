"""The error policy table is total, and an error survives the wire."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo, ResourceInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from torchless.contracts.errors import (
    KIND_OF_GRPC_STATUS,
    ErrorKind,
    ErrorPolicy,
    FieldViolation,
    Resource,
    ResourceType,
    Retry,
    TorchlessError,
    invalid_input,
    not_found,
)
from torchless.contracts.grpc_status import from_status, to_status

text = st.text(st.characters(codec="utf-8"), max_size=50)


name = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=10)
path = st.builds(lambda first, rest: (first, *rest), name, st.lists(name | st.integers(0, 10_000), max_size=3))


def policies(**wanted: object) -> set[ErrorKind]:
    return {kind for kind in ErrorKind if all(getattr(kind.policy, name) == value for name, value in wanted.items())}


def test_every_kind_has_a_policy() -> None:
    assert all(isinstance(kind.policy, ErrorPolicy) for kind in ErrorKind)


def test_every_grpc_status_but_ok_maps_back() -> None:
    assert set(KIND_OF_GRPC_STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("kind", ErrorKind)
def test_a_kind_that_has_its_status_to_itself_maps_back_to_itself(kind: ErrorKind) -> None:
    sharing = policies(grpc_status=kind.policy.grpc_status)
    assert KIND_OF_GRPC_STATUS[kind.policy.grpc_status] in sharing


def test_callers_faults_are_exactly_the_4xx_that_are_not_about_load() -> None:
    load = {ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED}
    assert {kind for kind in ErrorKind if 400 <= kind.policy.http_status < 500} - load == policies(callers_fault=True)


@pytest.mark.parametrize("kind", policies(callers_fault=True))
def test_a_callers_fault_changes_nothing_for_the_endpoint_or_for_other_callers(kind: ErrorKind) -> None:
    wider = ("counts_for_breaker", "endpoint_fault", "resumes_stream", "shared", "degrades", "service_down")
    assert kind.policy.retry is Retry.NOWHERE
    assert not any(getattr(kind.policy, name) for name in wider)


def test_only_unreachable_is_retried_anywhere_and_only_refusals_elsewhere() -> None:
    assert policies(retry=Retry.ANYWHERE) == {ErrorKind.UNREACHABLE}
    assert policies(retry=Retry.ELSEWHERE) == {
        ErrorKind.OVERLOADED,
        ErrorKind.RATE_LIMITED,
        ErrorKind.GPU_UNAVAILABLE,
        ErrorKind.MODEL_UNAVAILABLE,
        ErrorKind.LOADING,
    }


def test_only_unreachable_and_deadline_count_for_the_breaker() -> None:
    assert policies(counts_for_breaker=True) == {ErrorKind.UNREACHABLE, ErrorKind.DEADLINE}


def test_errors_that_may_pass_later_are_transient() -> None:
    assert policies(transient=True) == {
        ErrorKind.OVERLOADED,
        ErrorKind.RATE_LIMITED,
        ErrorKind.LOADING,
        ErrorKind.UNREACHABLE,
        ErrorKind.CIRCUIT_OPEN,
        ErrorKind.DEADLINE,
    }


def test_a_missing_model_is_handled_as_a_missing_gpu() -> None:
    assert ErrorKind.MODEL_UNAVAILABLE.policy == ErrorKind.GPU_UNAVAILABLE.policy


def test_a_loading_service_is_no_failure_and_asks_for_patience() -> None:
    policy = ErrorKind.LOADING.policy
    assert not policy.counts_for_breaker
    assert policy.not_started
    assert policy.retry_after_s > ErrorKind.UNREACHABLE.policy.retry_after_s


errors = st.builds(
    TorchlessError,
    st.sampled_from(ErrorKind),
    text,
    violations=st.lists(st.builds(FieldViolation, path, text), max_size=3).map(tuple),
    retry_after_s=st.none() | st.floats(0, 1e6),
    metadata=st.dictionaries(text, text, max_size=3),
    resource=st.none() | st.builds(Resource, st.sampled_from(ResourceType), text),
)


@given(errors)
def test_an_error_survives_the_wire(sent: TorchlessError) -> None:
    got = from_status(Status.FromString(to_status(sent).SerializeToString()))
    assert got.retry_after_s == pytest.approx(sent.retry_after_s, abs=1e-6)
    assert vars(got) | {"retry_after_s": None} == vars(sent) | {"retry_after_s": None}


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


def test_a_resource_of_an_unknown_type_is_ignored() -> None:
    info = Any()
    info.Pack(ResourceInfo(resource_type="spaceship", resource_name="x"))
    assert from_status(Status(code=5, message="m", details=[info])).resource is None


def test_renamed_paths_rebuild_the_message_of_an_error_about_fields() -> None:
    error = invalid_input(("texts", 3), "is empty", index="3").with_paths(lambda path: ("inputs", *path[1:]))
    assert (error.message, error.violations[0].path) == ("inputs[3]: is empty", ("inputs", 3))
    assert error.metadata == {"index": "3"}


def test_renamed_paths_leave_any_other_message_unchanged() -> None:
    violations = (FieldViolation(("texts",), "is empty"),)
    error = TorchlessError(ErrorKind.INVALID_INPUT, "texts: quoted by hand", violations=violations)
    renamed = error.with_paths(lambda path: ("inputs",))
    assert (renamed.message, renamed.violations[0].field) == ("texts: quoted by hand", "inputs")


def test_a_copy_is_another_exception_that_says_the_same() -> None:
    resource = Resource(ResourceType.MODEL, "m")
    error = TorchlessError(ErrorKind.NOT_FOUND, "m", retry_after_s=2.0, metadata={"a": "b"}, resource=resource)
    copy = error.copy()
    assert copy is not error
    assert vars(copy) == vars(error)


def test_the_name_of_a_resource_is_cut_to_fit_a_trailer() -> None:
    assert not_found(ResourceType.LEASE, "x" * 100_000, "m").resource == Resource(ResourceType.LEASE, "x" * 200)
