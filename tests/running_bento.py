"""A real bento in separate processes, as an operator starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.running_stack import ROOT
from tests.waiting import until
from torchless.cli.free_ports import free_ports
from torchless.cli.log_tail import log_tail
from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.settings import BreakerSettings, ClientSettings
from torchless.contracts.errors import TorchlessError

START_S = 60


@dataclass(frozen=True)
class Bento:
    """A running bento."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def lines(self) -> list[str]:
        """The lines that it has printed."""
        return self.log.read_text(errors="replace").splitlines()

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    async def metrics(self) -> str:
        """Its Prometheus metrics."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())

    async def metric(self, name: str, labels: str = "") -> float:
        """Sum of the samples of a metric whose labels contain `labels`."""
        lines = (await self.metrics()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and labels in line)


@contextmanager
def serving(
    capability: str,
    *,
    prefix: tuple[str, ...] = (),
    arguments: tuple[str, ...] = ("--api-workers", "1"),
    variables: Mapping[str, str] | None = None,
    **environment: str,
) -> Iterator[Bento]:
    """Starts the bento `bentos/<capability>` on a free port.

    Args:
        capability: The bento's name.
        prefix: Program and arguments before the command.
        arguments: Further arguments of `bentoml serve-grpc`.
        variables: Environment variables on top of this process's.
        environment: Its settings, without the prefix of their variables.
    """
    port, metrics_port = free_ports(2)
    names = f"TORCHLESS_{capability.upper()}_"
    with tempfile.TemporaryDirectory() as home:
        settings = {f"{names}{name.upper()}": value for name, value in environment.items()}
        settings.setdefault(f"{names}METRICS_PORT", str(metrics_port))
        settings.setdefault(f"{names}LOG__FORMAT", "text")
        log = Path(home) / "log"
        command = [sys.executable, "-m", "bentoml", "serve-grpc", f"bentos.{capability}.service:svc"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--enable-reflection", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*prefix, *command],
                cwd=ROOT,
                env={
                    **os.environ,
                    "BENTOML_HOME": home,
                    "BENTOML_DO_NOT_TRACK": "True",
                    **(variables or {}),
                    **settings,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Bento(f"127.0.0.1:{port}", process, log, metrics_port)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def patient(address: str) -> ClientSettings:
    """Settings of a client that keeps calling while a model loads."""
    return ClientSettings(address=address, breaker=BreakerSettings(failures=1000))


async def until_health(client: CapabilityClient, bento: Bento, *, ready: bool) -> None:
    """Waits until the service reports that it is, or is not, ready."""

    async def has_health() -> bool:
        assert bento.process.poll() is None, f"the bento ended:\n{log_tail(bento.log, 60)}"
        try:
            return await client.ready(CallContext(deadline=Deadline.after(5))) is ready
        except TorchlessError:
            return False

    await until(has_health, lambda: f"ready is {ready}\n{log_tail(bento.log, 60)}", within_s=START_S)


def wait_until_ready(kind: type[CapabilityClient], bento: Bento) -> None:
    """Waits until the service is ready, in fixtures without an event loop; `kind` is its client."""

    async def wait() -> None:
        async with kind(bento.address) as client:
            await until_health(client, bento, ready=True)

    asyncio.run(wait())
