"""The embedding bento on the device, over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.inputs import Request
from benchmarks.gpu_check import models
from benchmarks.gpu_check.plan import Plan
from benchmarks.gpu_check.throughput import requests_for, time_requests
from benchmarks.paths import ROOT
from torchless.cli.free_ports import free_port
from torchless.cli.log_tail import log_tail
from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import TorchlessError

_START_S = 45.0
_STOP_S = 10.0


def run(plan: Plan) -> list[dict[str, Any]]:
    """One row for each load: requests per second and latency of one-text requests, from one client process."""
    dtype = plan.timed_dtypes[-1]
    with _bento(plan, dtype) as address:
        return asyncio.run(_measure(plan, dtype, address))


async def _measure(plan: Plan, dtype: str, address: str) -> list[dict[str, Any]]:
    # The client sends as many as the load asks for.
    unlimited = ConcurrencySettings(initial=4096, max=4096)
    async with EmbeddingClient(ClientSettings(address=address, concurrency=unlimited)) as client:
        requests = requests_for(models.EMBEDDING)

        async def answer(request: Request) -> np.ndarray[Any, Any]:
            return (await client.embed(request.texts)).vectors

        rows = []
        for in_flight in plan.in_flight:
            found = await time_requests(answer, requests, in_flight, plan.window_s)
            rows.append(
                {"model": models.EMBEDDING, "dtype": dtype, "in flight": in_flight}
                | {"requests/s": round(found.per_second, 1), "p50 ms": round(found.p50_ms, 2)}
                | {"p95 ms": round(found.p95_ms, 2)}
            )
        return rows


@contextmanager
def _bento(plan: Plan, dtype: str) -> Iterator[str]:
    """Starts the bento and waits until it serves; gives its address."""
    port, log = free_port(), Path(plan.folder) / "embedding.log"
    model = {"id": "checked", "path": plan.weights, "device": plan.device, "dtype": dtype}
    environment = {
        "BENTOML_HOME": plan.folder,
        "BENTOML_DO_NOT_TRACK": "True",
        "TORCHLESS_EMBEDDING_MODELS": json.dumps([{**model, "max_batch_tokens": models.GPU_BATCH_TOKENS}]),
        "TORCHLESS_EMBEDDING_BATCHING": models.GPU_BATCHING.model_dump_json(),
        "TORCHLESS_EMBEDDING_METRICS_PORT": "0",
    }
    command = [sys.executable, "-m", "bentoml", "serve-grpc", "bentos.embedding.service:svc", "--api-workers", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        asyncio.run(_until_ready(f"127.0.0.1:{port}", process, log))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = Deadline.after(_START_S)
    async with EmbeddingClient(address) as client:
        ready = partial(client.ready, CallContext(deadline=Deadline.after(_START_S)))
        while not deadline.expired:
            if process.poll() is not None:
                break
            try:
                if await ready():
                    return
            except TorchlessError:
                pass  # it does not listen yet
            await asyncio.sleep(0.2)
    raise RuntimeError(f"the embedding service did not start:\n{log_tail(log)}")
