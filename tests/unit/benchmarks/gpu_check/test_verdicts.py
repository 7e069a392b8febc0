"""The verdicts of the check of a machine with a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.gpu_check.plan import LEAST_RATIO, STAGES, Plan
from benchmarks.gpu_check.verdicts import FAILED, OK, SKIPPED, verdicts


def throughput(ratio: float) -> dict[str, Any]:
    return {
        "model": "embedding",
        "dtype": "float32",
        "in flight": 32,
        "requests/s": 100.0,
        "direct requests/s": 100.0 / max(ratio, 0.01),
        "ratio": ratio,
        "p50 ms": 1.0,
        "p95 ms": 2.0,
    }


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ({"dtype": "float32", "cosine": 0.999995}, OK),
        ({"dtype": "float32", "cosine": 0.99998}, FAILED),
        ({"dtype": "bfloat16", "cosine": 0.9998}, OK),
        ({"dtype": "float16", "cosine": math.nan}, FAILED),
        ({"model": "late interaction", "dtype": "float32", "error": 0.0005}, OK),
        ({"model": "late interaction", "dtype": "bfloat16", "error": 0.04}, FAILED),
        ({"model": "cross-encoder", "dtype": "bfloat16", "error": 0.04}, OK),
        ({"model": "cross-encoder", "dtype": "float16", "error": math.nan}, FAILED),
    ],
)
def test_fidelity_fails_below_the_bound_of_its_dtype(row: dict[str, Any], outcome: str) -> None:
    (verdict,) = verdicts({"fidelity": [{"model": "embedding", **row}]}, timed=True)
    assert verdict.outcome == outcome
    assert row["dtype"] in verdict.line


@pytest.mark.parametrize(("ratio", "timed", "outcome"), [(1.2, True, OK), (0.9, True, FAILED), (0.9, False, SKIPPED)])
def test_throughput_is_judged_unless_the_run_is_dry(ratio: float, timed: bool, outcome: str) -> None:
    (verdict,) = verdicts({"throughput": [throughput(ratio)]}, timed=timed)
    assert verdict.outcome == outcome


def test_failed_tests_are_named() -> None:
    result = {"passed": 3, "skipped": 1, "failed": ["tests.test_a.test_b"], "without bentoml": False}
    (verdict,) = verdicts({"tests": result}, timed=True)
    assert verdict.outcome == FAILED
    assert "tests.test_a.test_b" in verdict.figure


@pytest.mark.parametrize(
    ("result", "outcome"), [({"error": "trace\nlast line"}, FAILED), ({"skipped because": "not installed: x"}, SKIPPED)]
)
def test_stage_without_a_result_has_one_line(result: dict[str, str], outcome: str) -> None:
    (verdict,) = verdicts({"service": result}, timed=True)
    assert verdict.outcome == outcome
    assert verdict.figure == next(iter(result.values())).splitlines()[-1]


def test_the_stages_fit_into_six_minutes_and_every_load_has_a_bound(tmp_path: Any) -> None:
    assert sum(STAGES.values()) <= 360
    plan = Plan.full("cuda", "weights", tmp_path)
    assert set(plan.in_flight) == set(LEAST_RATIO)
    assert plan == Plan(**plan.to_json())
