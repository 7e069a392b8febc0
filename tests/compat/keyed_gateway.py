"""A second gateway before the same services, which lets in those alone that have a key."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running_stack import GATEWAY_PYTHON, ROOT, RunningStack
from tests.waiting import wait_until
from torchless.cli.free_ports import free_port
from torchless.cli.log_tail import log_tail

KEY = "a key with which to come in"
STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 30.0


@contextmanager
def keyed_gateway(stack: RunningStack, folder: Path) -> Iterator[str]:
    """Base URL of a gateway in a separate process, whose only key is `KEY`; its log goes to `folder`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(GATEWAY_PYTHON), "-m", "bentoml", "serve", "gateway.service:Gateway"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "True",
        "TORCHLESS_GATEWAY_AUTH__API_KEYS": json.dumps([KEY]),
        **{f"TORCHLESS_GATEWAY_{name.upper()}__ADDRESS": address for name, address in stack.addresses.items()},
    }
    log = folder / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_live(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(STOPS_WITHIN_S)


def _wait_until_live(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def is_live() -> bool:
        assert process.poll() is None, f"the gateway ended on its own:\n{log_tail(log, 60)}"
        return _live(url)

    wait_until(is_live, lambda: f"the gateway is live:\n{log_tail(log, 60)}", within_s=STARTS_WITHIN_S)


def _live(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # not listening yet
        return False
