"""The model bentos on the device, over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data.inputs import Request
from benchmarks.gpu_check import models
from benchmarks.gpu_check.plan import Plan
from benchmarks.gpu_check.throughput import requests_for, time_requests
from benchmarks.paths import ROOT
from torchless.cli.free_ports import free_port
from torchless.cli.log_tail import log_tail
from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.reranking import RerankingClient, RerankOptions
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import TorchlessError

_START_S = 45.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class _Bento:
    """A bento that has been started."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path


def run(plan: Plan) -> list[dict[str, Any]]:
    """One row for each model and load: requests per second and latency, from one client process."""
    dtype = plan.timed_dtypes[-1]
    model = {"device": plan.device, "dtype": dtype, "max_batch_tokens": models.GPU_BATCH_TOKENS}
    embedding = {**model, "id": models.EMBEDDING, "path": plan.weights}
    late = {**model, "id": models.LATE_INTERACTION, "path": plan.weights, "kind": "late_interaction"}
    cross = {**model, "id": models.CROSS_ENCODER, "kind": "cross_encoder"}
    cross["path"] = str(models.cross_encoder_folder(plan))
    with ExitStack() as running:  # both load at the same time
        one = running.enter_context(_bento(plan, "embedding", [embedding]))
        other = running.enter_context(_bento(plan, "reranking", [late, cross]))
        return asyncio.run(_measure(plan, dtype, one, other))


async def _measure(plan: Plan, dtype: str, embedding: _Bento, reranking: _Bento) -> list[dict[str, Any]]:
    async with (
        EmbeddingClient(_settings(embedding.address)) as embedder,
        RerankingClient(_settings(reranking.address)) as reranker,
    ):
        await asyncio.gather(_until_ready(embedder, embedding), _until_ready(reranker, reranking))

        async def embed(request: Request) -> object:
            return await embedder.embed(request.texts)

        async def rerank(model: str, request: Request) -> object:
            return await reranker.rerank(request.query, request.texts, RerankOptions(model=model))

        answers: dict[str, Callable[[Request], Awaitable[object]]] = {models.EMBEDDING: embed}
        answers |= {name: partial(rerank, name) for name in (models.LATE_INTERACTION, models.CROSS_ENCODER)}
        return [
            await _row(plan, name, dtype, in_flight, answer)
            for name, answer in answers.items()
            for in_flight in plan.in_flight
        ]


def _settings(address: str) -> ClientSettings:
    # The client sends as many as the load asks for.
    return ClientSettings(address=address, concurrency=ConcurrencySettings(initial=4096, max=4096))


async def _row(
    plan: Plan, name: str, dtype: str, in_flight: int, answer: Callable[[Request], Awaitable[object]]
) -> dict[str, Any]:
    found = await time_requests(answer, requests_for(name), in_flight, plan.window_s)
    return {
        "model": name,
        "dtype": dtype,
        "in flight": in_flight,
        "requests/s": round(found.per_second, 1),
        "p50 ms": round(found.p50_ms, 2),
        "p95 ms": round(found.p95_ms, 2),
    }


@contextmanager
def _bento(plan: Plan, name: str, served: Sequence[Mapping[str, object]]) -> Iterator[_Bento]:
    """Starts a bento with these models, and stops it at the end."""
    port, log, home = free_port(), Path(plan.folder) / f"{name}.log", Path(plan.folder) / f"{name}-bentoml"
    home.mkdir(exist_ok=True)
    prefix = f"TORCHLESS_{name.upper()}_"
    environment = {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        f"{prefix}MODELS": json.dumps(served),
        f"{prefix}BATCHING": models.GPU_BATCHING.model_dump_json(),
        f"{prefix}METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "bentoml", "serve-grpc", f"bentos.{name}.service:svc", "--api-workers", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _Bento(process, f"127.0.0.1:{port}", log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(client: CapabilityClient, bento: _Bento) -> None:
    deadline = Deadline.after(_START_S)
    ready = partial(client.ready, CallContext(deadline=deadline))
    while not deadline.expired:
        if bento.process.poll() is not None:
            break
        try:
            if await ready():
                return
        except TorchlessError:
            pass  # it does not listen yet
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the {client.capability} service did not start:\n{log_tail(bento.log)}")
