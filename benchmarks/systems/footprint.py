"""What the gateway costs before it does anything: time until it answers, and memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load_generator.http_connection import HTTPConnection, request
from benchmarks.systems.processes import Server, tree
from torchless.cli.services import Service

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """One process's memory."""

    role: str
    """`supervisor`, `worker` or `other`."""
    resident_mib: float
    """Resident set: what the process has in memory, pages shared with others included."""
    proportional_mib: float
    """The same with each shared page divided by the number of processes that share it."""


def start_seconds(service: Service, port: int, log: Path) -> float:
    """Starts the gateway, and stops it: seconds from the start of its process to the first answer of `/health/live`."""
    started = time.perf_counter()
    with Server(service.command, service.environment, log) as server:
        server.wait(lambda: asyncio.run(answers(port, "/health/live")), timeout_s=60, pause_s=0.005)
        return time.perf_counter() - started


async def answers(port: int, path: str) -> bool:
    """Whether `GET path` on loopback is answered with 200."""
    connection = await HTTPConnection.open("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            status, _ = await connection.exchange(request("GET", path))
    finally:
        connection.close()
    return status == 200


def memory(pid: int) -> list[Memory]:
    """Memory of a BentoML server's processes, the supervisor first."""
    found = []
    for process in tree(pid):
        full = process.memory_full_info()
        role = "supervisor" if process.pid == pid else _role(process.cmdline())
        found.append(Memory(role, full.rss / _MIB, full.pss / _MIB))
    return found


def _role(command: list[str]) -> str:
    return "worker" if any("worker" in part for part in command) else "other"
