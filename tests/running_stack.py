"""The real stack in processes of its own, started by `torchless up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torchless.cli.free_ports import free_ports
from torchless.cli.log_tail import log_tail

ROOT = Path(__file__).parents[1]
GATEWAY_PYTHON = Path(os.environ.get("TORCHLESS_UP_GATEWAY_PYTHON", ROOT / ".venv/gateway/bin/python"))
"""Python of the environment without torch."""
BENTOS_PYTHON = Path(os.environ.get("TORCHLESS_UP_BENTOS_PYTHON", ROOT / ".venv/bentos/bin/python"))
"""Python of the environment with torch; `torchless up` reads the same variable."""
STARTS_WITHIN_S = 180.0
STOPS_WITHIN_S = 90.0
ALIASES = {"text-embedding-3-small": "", "default/not-specified": ""}
"""Names that clients use on their own, each for the default model."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Where the services listen."""

    url: str
    """Base URL of the gateway."""
    embedding_address: str
    """`host:port` of the embedding service's gRPC API."""
    reranking_address: str
    """`host:port` of the reranking service's gRPC API."""
    gpu_address: str
    """`host:port` of the GPU service's gRPC API."""


@contextmanager
def running_stack(folder: Path) -> Iterator[RunningStack]:
    """Starts the bentos and the gateway on free ports, and stops them; logs go to `folder`."""
    gateway, *bentos = free_ports(4)
    command = [str(GATEWAY_PYTHON), "-m", "torchless.cli", "up", "--state", str(folder), "--metrics-port", "0"]
    command += ["--gateway-port", str(gateway)]
    for name, port in zip(("embedding", "reranking", "gpu"), bentos, strict=True):
        command += [f"--{name}-port", str(port)]
    stack = RunningStack(f"http://127.0.0.1:{gateway}", *(f"127.0.0.1:{port}" for port in bentos))
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
    until = time.monotonic() + STARTS_WITHIN_S
    while not _ready(stack.url):
        assert process.poll() is None, f"torchless up ended on its own:\n{log_tail(log, 60)}"
        assert time.monotonic() < until, f"the stack is not ready after {STARTS_WITHIN_S:.0f} s:\n{log_tail(log, 60)}"
        time.sleep(0.2)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet, or 503
        return False
