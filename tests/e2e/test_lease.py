"""A model bento and the GPU service, both as operators start them: memory is leased before the model is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.integration.gpu.conftest import PATIENCE_S, Bento, client_of, serving
from tests.integration.gpu.stand_in import GPU, Machine
from tests.running_bento import patient
from tests.running_stack import BENTOS_PYTHON, ROOT
from tests.waiting import until
from torchless.cli.free_ports import free_port
from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import ErrorKind, TorchlessError

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One GPU of 10,000 MiB, 500 of them in use, for the GPU service alone: the model runs on the CPU."""
    machine = Machine(tmp_path, [GPU("GPU-a")])
    machine.install()
    machine.tell()
    return machine


@contextmanager
def embedding(gpu: Bento, folder: Path, **lease: str) -> Iterator[Bento]:
    """The embedding bento, set to lease of `gpu`."""
    if not BENTOS_PYTHON.is_file():
        missing(f"{BENTOS_PYTHON} is not there: `make test` makes it")
    port = free_port()
    settings = {"address": gpu.address, "memory_mb": "4000", "holder": "the-model"} | lease
    environment = {f"TORCHLESS_EMBEDDING_LEASE__{name.upper()}": value for name, value in settings.items()}
    environment |= {"TORCHLESS_EMBEDDING_METRICS_PORT": "0", "BENTOML_HOME": str(folder / "bentos")}
    command = [str(BENTOS_PYTHON), "-m", "bentoml", "serve-grpc", "bentos.embedding.service:svc"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api-workers", "1"]
    log = folder / "embedding.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Bento(f"127.0.0.1:{port}", process, log, 0)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def test_lease_is_held_while_the_model_serves_and_then_released(machine: Machine, tmp_path: Path) -> None:
    with serving(machine) as gpu:
        async with client_of(gpu) as leases:
            with embedding(gpu, tmp_path) as bento:
                async with EmbeddingClient(bento.address) as client:

                    async def ready() -> bool:
                        try:
                            return await client.ready()
                        except TorchlessError:
                            return False

                    await until(ready, bento.log.read_text, within_s=PATIENCE_S)
                    (lease,) = (await leases.status()).allocations
                    assert (lease.holder, lease.devices[0].memory_mb) == ("the-model", 4000)
                    assert len((await client.embed(["a text"])).vectors) == 1
                bento.process.send_signal(signal.SIGTERM)
                assert bento.process.wait(30) == 0
            assert (await leases.status()).allocations == ()


async def test_without_a_lease_the_model_is_not_loaded_and_calls_fail_with_the_reason(
    machine: Machine, tmp_path: Path
) -> None:
    machine.gpus.clear()
    machine.tell()
    with serving(machine) as gpu:
        async with client_of(gpu):
            with embedding(gpu, tmp_path) as bento:
                async with EmbeddingClient(patient(bento.address)) as client:

                    async def refused() -> bool:
                        try:
                            await client.embed(["a text"])
                        except TorchlessError as error:
                            return error.kind is ErrorKind.GPU_UNAVAILABLE
                        return False

                    await until(refused, bento.log.read_text, within_s=PATIENCE_S)
                    assert await client.ready() is False
