"""The gateway as BentoML serves it, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.waiting import wait_until
from torchless.cli.free_ports import free_port

ROOT = Path(__file__).parents[3]


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's variables without settings, and with `home` as BentoML's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHLESS_", "BENTOML_"))}
    return {**kept, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", **more}


@contextmanager
def served(target: str, working_dir: Path, address: str, home: Path, **more: str) -> Iterator[tuple[httpx.Client, int]]:
    """A client of `bentoml serve target`, and the supervisor's process id."""
    more = {"TORCHLESS_GATEWAY_EMBEDDING__ADDRESS": address, **more}
    listen = ["--host", "127.0.0.1", "--port", str(free_port())]
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", target, "--working-dir", str(working_dir), *listen],
            cwd=working_dir,
            env=environment(home, **more),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listen[-1]}", timeout=20) as client:
                _wait_until_live(client, process)
                yield client, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_live(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    def is_live() -> bool:
        assert process.poll() is None, "the gateway ended before it was live"
        try:
            return client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_live, "the gateway is live", within_s=60)
