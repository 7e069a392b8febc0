"""Medians over rounds, comparisons within a round, and what is written about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.aims import HTTP, verdicts
from benchmarks.batches import Passes
from benchmarks.chart import to_svg
from benchmarks.contestants import DIRECT, GRPC
from benchmarks.cpu import STOLEN, STRANGERS
from benchmarks.footprint import Memory
from benchmarks.plan import SHORT, Plan
from benchmarks.report import to_markdown
from benchmarks.results import Results, to_json, warning
from benchmarks.samples import Sample, rows
from benchmarks.spans import Numbers

LOAD = "load generator"


def sample(contestant: str, case: str, number: int, texts: float, p50: float) -> Sample:
    requests = Numbers(per_second=texts, p50_ms=p50, p95_ms=2 * p50, p99_ms=3 * p50, requests=100)
    passes = Passes(10, 40, {4.0: 10.0}) if contestant == GRPC else None
    return Sample(contestant, case, number, texts, requests, {LOAD: 0.1, STRANGERS: 0.0, STOLEN: 0.0}, passes)


@pytest.fixture
def samples() -> list[Sample]:
    # The machine slows down from round to round; each round's ratio is 0.9, 0.8 and so on all the same.
    speeds = {
        DIRECT: 100.0,
        GRPC: 90.0,
        HTTP[0]: 80.0,
        HTTP[1]: 70.0,
        "infinity, base64": 75.0,
        "infinity, float": 60.0,
    }
    return [
        sample(name, case.name, number, texts / number, 1000 * number / texts)
        for number in (1, 2, 3)
        for case in SHORT
        for name, texts in speeds.items()
    ]


def test_ratios_are_taken_within_a_round(samples: Sequence[Sample]) -> None:
    table = {(row.contestant, row.case): row for row in rows(samples, DIRECT, LOAD)}
    row = table[GRPC, SHORT[0].name]
    assert row.texts_per_second.median == 45
    assert (row.ratio.least, row.ratio.median, row.ratio.most) == pytest.approx((0.9, 0.9, 0.9))
    assert row.added_p50_ms.least == pytest.approx(1000 / 90 - 10)
    assert row.added_p50_ms.most == pytest.approx(3 * (1000 / 90 - 10))
    assert (row.mean_batch, row.batches) == (4, {"1-4": 1.0})


def test_aims_say_what_was_missed(samples: Sequence[Sample]) -> None:
    memory = [Memory("supervisor", 200, 150), Memory("worker", 120, 90)]
    found = {v.aim: v.met for v in verdicts(rows(samples, DIRECT, LOAD), [1.0, 1.2, 3.0], memory)}
    assert found[f"{GRPC}, 32 in flight: at least 0.85 of the direct call's throughput"]
    assert found["gateway, base64, 32 in flight: at least 0.75 of the direct call's throughput"]
    assert not found["gateway, float, 32 in flight: at least 0.75 of the direct call's throughput"]
    assert found["gateway, float, 8 in flight: ahead of infinity, float"]
    assert found["gateway answers /health/live within 1.5 s of its start"]
    assert found["gateway under 150 MiB resident a worker"]


@pytest.fixture
def results(samples: Sequence[Sample]) -> Results:
    table = rows(samples, DIRECT, LOAD)
    memory = [Memory("supervisor", 90, 60), Memory("worker", 120, 90), Memory("worker", 121, 91)]
    return Results(
        machine={"processor": "P", "cores": 2, "memory_gib": 4, "system": "Linux 6", "python": "3.11"}
        | {"commit": "abc", "uncommitted_changes": True},
        versions={"gateway": {"bentoml": "1"}},
        threads=2,
        tokens={"short": {"mean": 19.0, "least": 9, "most": 31}},
        plan=Plan(SHORT, rounds=3, seconds=1.0, warm_up_s=0.5, starts=1, peer=True),
        fidelity={GRPC: 0.9999999},
        starts_s=[1.25],
        memory_idle=memory,
        memory_used=memory,
        idle_cores=[0.0, 0.01],
        samples=samples,
        rows=table,
        verdicts=verdicts(table, [1.25], memory),
    )


def test_a_run_is_written_in_all_forms(results: Results) -> None:
    text = to_markdown(results, chart="bench.svg")
    assert "| embedding, gRPC | 45.0 (30.0-90.0) | 22.2 |" in text
    assert "| worker 2 | 121 | 121 | 91 | 91 |" in text
    assert "| missed |" in text
    assert len(json.loads(to_json(results))["samples"]) == len(results.samples)
    picture = ElementTree.fromstring(to_svg(results.rows, [case.name for case in SHORT]))
    assert len(picture.findall(".//{*}g")) == 2


def test_a_run_among_strangers_opens_with_a_warning(results: Results) -> None:
    assert warning(results) == ""
    busy = [replace(s, cores={**s.cores, STRANGERS: 0.7}) for s in results.samples]
    disturbed = replace(results, samples=busy)
    assert "others took 0.70 of its 2 cores" in warning(disturbed)
    assert warning(disturbed) in to_markdown(disturbed, chart="bench.svg")
