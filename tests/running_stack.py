"""The real stack in separate processes, started by `torchless up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until
from torchless.cli.bentos import BENTOS
from torchless.cli.free_ports import free_ports
from torchless.cli.log_tail import log_tail

ROOT = Path(__file__).parents[1]
GATEWAY_PYTHON = ROOT / ".venv/gateway/bin/python"
"""Python of the environment without torch."""
BENTOS_PYTHON = ROOT / ".venv/bentos/bin/python"
"""Python of the environment with torch."""
STARTS_WITHIN_S = 180.0
STOPS_WITHIN_S = 90.0
ALIASES = {"text-embedding-3-small": "", "default/not-specified": ""}
"""Model names that client libraries send by default; each stands for the default model."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """The addresses of a running stack."""

    url: str
    """Base URL of the gateway."""
    addresses: Mapping[str, str]
    """`host:port` of each service's gRPC API, by the service's name."""


@contextmanager
def running_stack(folder: Path) -> Iterator[RunningStack]:
    """Runs the bentos and the gateway on free ports; logs go to `folder`."""
    gateway, *free = free_ports(1 + len(BENTOS))
    ports = {bento.name: port for bento, port in zip(BENTOS, free, strict=True)}
    command = [str(GATEWAY_PYTHON), "-m", "torchless.cli", "up", "--state", str(folder)]
    for name, port in {**ports, "gateway": gateway, "metrics": 0}.items():
        command += ["--port", f"{name}={port}"]
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    stack = RunningStack(f"http://127.0.0.1:{gateway}", addresses)
    environment = os.environ | {"TORCHLESS_GATEWAY_MODELS__ALIASES": json.dumps(ALIASES)}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(stack, process, log)
            yield stack
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(STOPS_WITHIN_S)
    assert status == 0, f"torchless up ended with {status}:\n{log_tail(log, 60)}"


def _wait_until_ready(stack: RunningStack, process: subprocess.Popen[bytes], log: Path) -> None:
    def ready() -> bool:
        assert process.poll() is None, f"torchless up ended by itself:\n{log_tail(log, 60)}"
        return _ready(stack.url)

    wait_until(ready, lambda: f"the stack is ready\n{log_tail(log, 60)}", within_s=STARTS_WITHIN_S)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet, or 503
        return False
