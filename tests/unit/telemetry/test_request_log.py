"""Which requests get a line, at which level, and what may be in it."""

from __future__ import annotations

import logging

import pytest

from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input
from torchless.settings import LogSettings
from torchless.telemetry.request_log import CANCELLED, RequestLog, error_fields, model_name, trace_id

ALL = LogSettings()
NONE = LogSettings(sample=0.0, slow_ms=500.0)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> RequestLog:
    caplog.set_level(logging.DEBUG, "torchless.request")
    return RequestLog("request")


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (200, logging.INFO),
        (CANCELLED, logging.INFO),
        (404, logging.WARNING),
        (429, logging.WARNING),
        (500, logging.ERROR),
        (503, logging.ERROR),
    ],
)
def test_level_follows_the_status(log: RequestLog, status: int, level: int) -> None:
    assert log.level(ALL, ["a"], status, 0.0) == level


def test_health_checks_are_logged_at_debug(log: RequestLog, caplog: pytest.LogCaptureFixture) -> None:
    assert log.level(ALL, ["a"], 503, 0.0, is_routine=True) == logging.DEBUG
    caplog.set_level(logging.INFO, "torchless.request")
    assert log.level(ALL, ["a"], 503, 0.0, is_routine=True) == 0


def test_requests_below_the_level_get_no_line(log: RequestLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "torchless.request")
    assert log.level(ALL, ["a"], 404, 9.0) == 0
    assert log.level(ALL, ["a"], 500, 0.0) == logging.ERROR


@pytest.mark.parametrize(("status", "begun_s"), [(400, 0.0), (CANCELLED, 0.0), (503, 0.0), (200, 0.5)])
def test_failed_and_slow_requests_are_never_sampled_away(log: RequestLog, status: int, begun_s: float) -> None:
    assert log.level(NONE, ["a"], 200, 0.4) == 0
    assert log.level(NONE, ["a"], status, begun_s)


def test_request_id_decides_on_sampling(log: RequestLog) -> None:
    half = LogSettings(sample=0.5)
    ids = [f"{number:x}" for number in range(2000)]
    kept = [each for each in ids if log.level(half, [each], 200, 0.0)]
    assert 850 < len(kept) < 1150
    assert kept == [each for each in ids if log.level(half, [each], 200, 0.0)]
    dropped = next(each for each in ids if each not in kept)
    assert not log.level(half, [dropped], 200, 0.0)
    assert log.level(half, [dropped, kept[0]], 200, 0.0), "a joined call is logged if one of its requests is"


@pytest.mark.parametrize("name", ["sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-m3:latest", "a" * 128])
def test_names_of_models_are_logged(name: str) -> None:
    assert model_name(name) == name


@pytest.mark.parametrize("name", ["", "How do swifts sleep?", "a" * 129, "a\nb", "é"])
def test_what_is_no_name_of_a_model_is_not_logged(name: str) -> None:
    assert model_name(name) is None


def test_trace_id_is_that_of_a_traceparent() -> None:
    assert trace_id(f"00-{'a' * 32}-{'b' * 16}-01") == "a" * 32
    for wrong in ("", "00", f"00-{'z' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-01\n", "00-\n-b-01"):
        assert trace_id(wrong) is None


def test_reason_is_left_out_where_it_may_quote_the_request() -> None:
    assert error_fields(invalid_input("input", "has 'a secret'")) == {"error": "INVALID_INPUT"}
    assert error_fields(TorchlessError(ErrorKind.INTERNAL, "a secret")) == {"error": "INTERNAL"}
    assert error_fields(TorchlessError(ErrorKind.DEADLINE, "too late")) == {"error": "DEADLINE", "reason": "too late"}
    assert error_fields(ValueError("a secret")) == error_fields(None) == {}
