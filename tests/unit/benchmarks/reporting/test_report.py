"""Medians over rounds, comparisons within a round, and what is written about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.client_layer.measure import ALONE, CROWDED, LayerResults
from benchmarks.client_layer.variants import BARE, CLIENT
from benchmarks.load_generator.spans import Numbers
from benchmarks.measurement.batches import Batches
from benchmarks.measurement.cpu import OTHER_PROCESSES, STOLEN
from benchmarks.measurement.samples import Sample, rows
from benchmarks.plan import CROSS_ENCODER, OTHER, RERANKING, SHORT, Case, LayerPlan, Plan, Task
from benchmarks.reporting.aims import HTTP, RERANKING_HTTP, layer_verdicts, verdicts
from benchmarks.reporting.chart import to_svg
from benchmarks.reporting.report import layer_to_markdown, to_markdown
from benchmarks.reporting.results import LayerRun, Results, to_json, warning
from benchmarks.reporting.summary import layer_summary, summary
from benchmarks.systems.contenders import DIRECT, GRPC, JOINED, NOT_JOINED, RERANKING_GRPC, Served
from benchmarks.systems.footprint import Memory
from benchmarks.systems.worker_process import WorkerProcess

LOAD = "load generator"
CASES = SHORT + RERANKING + CROSS_ENCODER


def sample(contender: str, case: Case, number: int, items: float, p50: float) -> Sample:
    requests = Numbers(per_second=items / case.items, p50_ms=p50, p95_ms=2 * p50, p99_ms=3 * p50, requests=100)
    batches = Batches(10, 40, {4.0: 10.0}) if contender == GRPC else None
    cores = {LOAD: 0.1, OTHER_PROCESSES: 0.0, STOLEN: 0.0}
    return Sample(contender, case.name, number, case.task.unit, items, requests, cores, batches)


@pytest.fixture
def samples() -> list[Sample]:
    # The machine slows down from round to round; each round's ratio is 0.9, 0.8 and so on all the same.
    embedding = {
        DIRECT: 100.0,
        GRPC: 90.0,
        JOINED: 80.0,
        NOT_JOINED: 75.0,
        HTTP[1]: 70.0,
        "infinity, base64": 75.0,
        "infinity, float": 60.0,
    }
    reranking = {DIRECT: 50.0, RERANKING_GRPC: 45.0, RERANKING_HTTP[0]: 40.0, RERANKING_HTTP[1]: 35.0}
    cross_encoder = {DIRECT: 40.0, RERANKING_GRPC: 32.0, RERANKING_HTTP[0]: 30.0, "infinity, /rerank": 31.0}
    speeds = {Task.EMBEDDING: embedding, Task.RERANKING: reranking, Task.CROSS_ENCODER: cross_encoder}
    return [
        sample(name, case, number, items / number, 1000 * number / items)
        for number in (1, 2, 3)
        for case in CASES
        for name, items in speeds[case.task].items()
    ]


def test_ratios_are_taken_within_a_round(samples: Sequence[Sample]) -> None:
    table = {(row.contender, row.case): row for row in rows(samples, DIRECT, LOAD)}
    row = table[GRPC, SHORT[0].name]
    assert row.items_per_second.median == 45
    assert (row.ratio.least, row.ratio.median, row.ratio.most) == pytest.approx((0.9, 0.9, 0.9))
    assert row.added_p50_ms.least == pytest.approx(1000 / 90 - 10)
    assert row.added_p50_ms.most == pytest.approx(3 * (1000 / 90 - 10))
    assert (row.mean_batch, row.batch_sizes) == (4, {"1-4": 1.0})


def test_verdicts_show_which_aims_were_missed(samples: Sequence[Sample]) -> None:
    memory = [Memory("supervisor", 200, 150), Memory("worker", 120, 90)]
    found = {v.aim: v.met for v in verdicts(rows(samples, DIRECT, LOAD), [1.0, 1.2, 3.0], memory)}
    part = "of the direct call's"
    assert found[f"embedding, 32 in flight: {GRPC} has at least 0.85 {part} texts/s"]
    assert found[f"embedding, 32 in flight: gateway, base64 has at least 0.75 {part} texts/s"]
    assert not found[f"embedding, 32 in flight: gateway, float has at least 0.75 {part} texts/s"]
    assert found["embedding, 8 in flight: gateway, float is ahead of infinity, float"]
    for count in (1, 8, 32):
        assert found[f"reranking, {count} in flight: {RERANKING_GRPC} has at least 0.85 {part} pairs/s"]
    assert not found[f"cross-encoder, 8 in flight: {RERANKING_GRPC} has at least 0.85 {part} pairs/s"]
    assert found[f"cross-encoder, 8 in flight: {RERANKING_GRPC} is ahead of infinity, /rerank"]
    assert not found["cross-encoder, 8 in flight: gateway, /v2/rerank is ahead of infinity, /rerank"]
    assert found[f"reranking, 1 in flight: {RERANKING_GRPC} adds under 10 ms at p95"]
    assert not found[f"reranking, 1 in flight: {RERANKING_GRPC} adds under 4 ms at the median"]
    assert found["gateway answers /health/live within 1.5 s of its start"]
    assert found["gateway under 150 MiB resident per worker"]


def test_joining_has_verdicts_at_many_requests_in_flight(samples: Sequence[Sample]) -> None:
    memory = [Memory("worker", 120, 90)]
    aim = "the gateway that joins requests is ahead of the one that does not"
    found = {v.aim: v for v in verdicts(rows(samples, DIRECT, LOAD), [1.0], memory) if v.aim.endswith(aim)}
    assert list(found) == [f"embedding, {count} in flight: {aim}" for count in (32, 64)]
    assert all(verdict.met for verdict in found.values())
    assert found[f"embedding, 32 in flight: {aim}"].measured == "40 against 38 texts/s"
    slower = [replace(s, items_per_second=1.0) if s.contender == JOINED else s for s in samples]
    judged = verdicts(rows(slower, DIRECT, LOAD), [1.0], memory)
    assert not any(verdict.met for verdict in judged if verdict.aim.endswith(aim))


def test_a_contender_takes_part_only_in_its_cases(tmp_path: Path) -> None:
    worker = WorkerProcess(Path("python"), "nothing", tmp_path / "log")
    short = Served(NOT_JOINED, frozenset(), worker, {}, SHORT)
    assert all(short.takes_part(case) for case in SHORT)
    assert not any(short.takes_part(case) for case in OTHER)
    assert Served(JOINED, frozenset(), worker, {}).takes_part(OTHER[0])


def layer_results(added_ms: float) -> LayerResults:
    def window(variant: str, load: str, number: int, p95_ms: float) -> Sample:
        calls = Numbers(per_second=3000.0, p50_ms=p95_ms / 2, p95_ms=p95_ms, p99_ms=2 * p95_ms, requests=700)
        return Sample(variant, load, number, "calls", 3000.0, calls, {OTHER_PROCESSES: 0.0, STOLEN: 0.0})

    # Rounds differ by more than what is added: it is compared within each.
    samples = [
        window(variant, load, number, 5.0 * number + more)
        for number in (1, 2, 3)
        for load in (ALONE, CROWDED)
        for variant, more in ((BARE, 0.0), (CLIENT, added_ms))
    ]
    cpu_us = [100.0 if sample.contender == BARE else 150.0 + sample.round for sample in samples]
    found = rows(samples, BARE, "caller")
    return LayerResults(LayerPlan(3, 0.25, 0.05), samples, cpu_us, found, has_redis=False)


@pytest.mark.parametrize(("added_ms", "met"), [(0.25, True), (1.25, False)])
def test_the_aim_of_the_client_layer_gives_both_numbers(added_ms: float, met: bool) -> None:
    (verdict,) = layer_verdicts(layer_results(added_ms))
    assert verdict.met is met
    spread = f"+{added_ms:.2f} ms (+{added_ms:.2f} to +{added_ms:.2f})"
    assert verdict.measured == f"{spread}: {10 + added_ms:.2f} against 10.00 ms"


def test_a_run_of_the_client_layer_alone_is_written_as_markdown_and_json(results: Results) -> None:
    layer = layer_results(0.25)
    run = LayerRun(results.machine, results.versions, layer, layer_verdicts(layer))
    text = layer_to_markdown(run)
    assert "| EmbeddingClient | 5.125 | 10.250 | +0.125 | +0.250 | 3000 | 5.12 | 10.25 | 152 |" in text
    assert "+0.25 ms (+0.25 to +0.25): 10.25 against 10.00 ms | met |" in text
    assert warning(run) == ""
    assert len(json.loads(to_json(run))["layer"]["samples"]) == len(layer.samples)
    (figures, aims) = layer_summary(run)
    assert (figures.row_count, aims.row_count) == (2, 1)


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
        documents="made up",
        plan=Plan(CASES, rounds=3, seconds=1.0, warm_up_s=0.5, starts=1, peer=True),
        fidelity={Task.EMBEDDING: {GRPC: 0.9999999}, Task.RERANKING: {RERANKING_GRPC: 2.5e-7}},
        starts_s=[1.25],
        memory_idle=memory,
        memory_used=memory,
        idle_cores=[0.0, 0.01],
        samples=samples,
        rows=table,
        layer=layer_results(0.25),
        verdicts=verdicts(table, [1.25], memory),
    )


def test_a_run_is_written_as_markdown_json_and_svg(results: Results) -> None:
    text = to_markdown(results, chart="bench.svg")
    assert "| embedding, gRPC | 45.0 (30.0-90.0) | 22.2 |" in text
    assert "| worker 2 | 121 | 121 | 91 | 91 |" in text
    assert "| contender | pairs/s |" in text
    assert "| reranking, gRPC | 22.5 (15.0-45.0) | 44.4 |" in text
    assert "raw scores, reranking: reranking, gRPC 2.5e-07." in text
    assert "| missed |" in text
    assert "## The client layer\n\n| variant |" in text
    assert "cache of embeddings is off" in text
    assert len(json.loads(to_json(results))["samples"]) == len(results.samples)
    assert "The client layer" in [table.title for table in summary(results)]
    assert "The client layer" not in [table.title for table in summary(replace(results, layer=None))]
    picture = ElementTree.fromstring(to_svg(results.rows, [SHORT, RERANKING]))
    assert len(picture.findall(".//{*}g")) == 4


def test_the_report_of_a_disturbed_run_begins_with_a_warning(results: Results) -> None:
    assert warning(results) == ""
    busy = [replace(s, cores={**s.cores, OTHER_PROCESSES: 0.7}) for s in results.samples]
    disturbed = replace(results, samples=busy)
    assert "others took 0.70 of its 2 cores" in warning(disturbed)
    assert warning(disturbed) in to_markdown(disturbed, chart="bench.svg")
