"""The gateway's start time and memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load_generator.http_connection import HTTPConnection, request_bytes
from benchmarks.systems.processes import Server, tree
from torchless.cli.services import Service

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process."""

    role: str
    """`supervisor`, `worker` or `other`."""
    resident_mib: float
    """Resident set size, including pages shared with other processes, in MiB."""
    proportional_mib: float
    """Proportional set size: each shared page divided by the number of its processes, in MiB."""


def start_seconds(service: Service, port: int, log: Path) -> float:
    """Starts and stops the gateway; returns the seconds from its start to the first response of `/health/live`."""
    started = time.perf_counter()
    with Server(service.command, service.environment, log) as server:
        server.wait(lambda: asyncio.run(answers(port, "/health/live")), timeout_s=60, pause_s=0.005)
        return time.perf_counter() - started


async def answers(port: int, path: str) -> bool:
    """Whether `GET path` on a port of 127.0.0.1 returns 200."""
    connection = await HTTPConnection.open("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            status, _ = await connection.exchange(request_bytes("GET", path))
    finally:
        connection.close()
    return status == 200


def memory(pid: int) -> list[Memory]:
    """Memory of the processes of a BentoML server, the supervisor first."""
    found = []
    for process in tree(pid):
        full = process.memory_full_info()
        role = "supervisor" if process.pid == pid else _role(process.cmdline())
        found.append(Memory(role, full.rss / _MIB, full.pss / _MIB))
    return found


def _role(command: list[str]) -> str:
    return "worker" if any("worker" in part for part in command) else "other"
