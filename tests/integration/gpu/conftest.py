"""The real GPU bento in its own processes, on the machine that the fake NVML library describes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.integration.gpu.stand_in import GPU, Machine
from tests.running_stack import ROOT
from tests.waiting import until
from torchless.cli.free_ports import free_ports
from torchless.cli.log_tail import log_tail
from torchless.clients.gpu import GPUClient
from torchless.contracts.errors import TorchlessError

GPU_PYTHON = ROOT / ".venv/gpu/bin/python"
"""Python of the GPU bento's environment."""
PATIENCE_S = 60


@dataclass(frozen=True)
class Bento:
    """A running GPU bento."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def kill(self) -> None:
        """Kills supervisor and worker at once, as a loss of power would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def serving(machine: Machine, *, port: int | None = None, **environment: str) -> Iterator[Bento]:
    """Starts the bento on free ports, or on `port`; `environment` are its settings without the prefix."""
    if not GPU_PYTHON.exists():
        missing(f"there is no environment of the GPU bento: {GPU_PYTHON}")
    free_port, metrics_port = free_ports(2)
    port = port or free_port
    defaults = {
        "store": str(machine.folder / "state" / "leases.sqlite3"),
        "metrics_port": str(metrics_port),
        "min_ttl_s": "0.1",
        "driver__poll_interval_s": "0.05",
        "driver__max_reading_age_s": "0",
        "driver__reopen_interval_s": "0.2",
        "sweep_interval_s": "0.05",
        "watch__min_interval_s": "0.05",
        "reserve_mb": "100",
    }
    settings = {f"TORCHLESS_GPU_{name.upper()}": value for name, value in (defaults | environment).items()}
    settings |= {"BENTOML_HOME": str(machine.folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [str(GPU_PYTHON), "-m", "bentoml", "serve-grpc", "bentos.gpu.service:svc"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-workers", "1", "--enable-reflection"]
    log = machine.folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **settings, **machine.environment},
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


@asynccontextmanager
async def client_of(bento: Bento) -> AsyncIterator[GPUClient]:
    """A client of the bento, once it is ready."""
    async with GPUClient(bento.address) as client:

        async def is_ready() -> bool:
            if bento.process.poll() is not None:
                pytest.fail("the bento ended: " + log_tail(bento.log, 60))
            try:
                return await client.ready()
            except TorchlessError:
                return False

        await until(is_ready, bento.log.read_text, within_s=PATIENCE_S)
        yield client


@pytest.fixture(scope="package")
def shared_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Two GPUs of 10,000 and 20,000 MiB, 500 of each in use."""
    machine = Machine(tmp_path_factory.mktemp("machine"), [GPU("GPU-a"), GPU("GPU-b", total_mb=20_000)])
    machine.install()
    machine.tell()
    return machine


@pytest.fixture(scope="package")
def bento(shared_machine: Machine) -> Iterator[Bento]:
    """A bento on that machine, for tests that leave it as it was."""
    with serving(shared_machine) as running:
        yield running


@pytest.fixture
async def client(bento: Bento) -> AsyncIterator[GPUClient]:
    """A client of that bento; leases that the test leaves are released."""
    async with client_of(bento) as one:
        yield one
        for allocation in (await one.status()).allocations:
            await one.release(allocation.id)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Captures the bentos' loggers, which do not propagate to pytest's."""
    ours = logging.getLogger("bentos")
    caplog.set_level(logging.INFO, logger="bentos")
    ours.addHandler(caplog.handler)
    yield caplog
    ours.removeHandler(caplog.handler)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of the test's own, with the same GPUs."""
    machine = Machine(tmp_path, [GPU("GPU-a"), GPU("GPU-b", total_mb=20_000)])
    machine.install()
    machine.tell()
    return machine
