"""Metrics that several workers share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_KILLED = """
import os, signal
from gateway.http.metrics import GatewayMetrics
GatewayMetrics().in_flight.inc(21)
os.kill(os.getpid(), signal.SIGKILL)
"""
_NEXT = """
from gateway.http.metrics import GatewayMetrics
metrics = GatewayMetrics()
metrics.in_flight.inc(2)
lines = metrics.exposition().decode().splitlines()
print([line.split()[-1] for line in lines if line.startswith("torchless_gateway_requests_in_flight")])
"""


def run(program: str, folder: Path) -> str:
    """What it prints, in a process that shares its metrics through `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_live_gauges_of_a_killed_worker_are_removed(tmp_path: Path) -> None:
    run(_KILLED, tmp_path)
    assert any(tmp_path.glob("gauge_livesum_*.db"))
    assert run(_NEXT, tmp_path) == "['2.0']\n"


def test_live_gauges_of_a_zombie_worker_are_removed(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."}
    with subprocess.Popen([sys.executable, "-c", _KILLED], env=environment, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.read()  # until it has ended, without asking for its status
        assert run(_NEXT, tmp_path) == "['2.0']\n"


def test_live_gauges_of_a_running_worker_are_kept(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _NEXT + "input()"],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": ".", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as alive:
        assert alive.stdout is not None
        assert alive.stdout.readline() == "['2.0']\n"
        assert run(_NEXT, tmp_path) == "['4.0']\n"
        alive.communicate("\n", timeout=60)
