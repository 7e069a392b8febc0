"""The programs of the suite in separate processes: started, stopped, frozen, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import grpc
import psutil
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.resilience.stub.faults import FaultFile, Faults
from tests.running_stack import BENTOS_PYTHON, GATEWAY_PYTHON, ROOT
from tests.waiting import until, wait_until
from torchless.cli.free_ports import free_port, free_ports
from torchless.cli.log_tail import log_tail
from torchless.clients.embedding import SERVICE_NAME

STOPS_WITHIN_S = 60.0


class Process:
    """One program, with whatever processes it starts itself.

    Args:
        name: Names its log.
        folder: Where it writes.
    """

    starts_within_s: ClassVar[float] = 30.0
    """Time after which one that does not serve yet never will, in seconds."""
    gave_up: ClassVar[bytes] = b"Traceback"
    """What its log holds if it never will."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self._log_began = 0

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables on top of the test's."""
        return {}

    async def answers(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Id of the process that was started."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def spawn(self) -> None:
        """Starts it, without waiting until it serves."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._log_began = output.tell()
            self._process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                env={**os.environ, **self.environment()},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._frozen = False

    async def start(self) -> None:
        """Starts it, and returns once it serves."""
        self.spawn()
        await self.until_it_answers()

    async def until_it_answers(self) -> None:
        """Waits until it serves."""

        async def answers() -> bool:
            if await self.answers():
                return True
            assert self.alive, f"{self.name} ended on its own:\n{log_tail(self.log, 60)}"
            assert self.gave_up not in self.log.read_bytes()[self._log_began :], log_tail(self.log, 60)
            return False

        await until(answers, lambda: f"{self.name} serves:\n{log_tail(self.log, 60)}", within_s=self.starts_within_s)

    def kill(self) -> None:
        """SIGKILL to all of it at once, so that no supervisor is left to start a worker again."""
        family = self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOPS_WITHIN_S)
        wait_until(lambda: not any(map(_runs, family)), f"{self.name} ends after SIGKILL", within_s=STOPS_WITHIN_S)

    def freeze(self) -> None:
        """SIGSTOP: its ports stay open, but nothing answers on them."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._frozen = False

    async def terminate(self) -> int:
        """SIGTERM to the process that an operator would ask; its exit status once it left."""
        if self._frozen:
            self.thaw()
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, STOPS_WITHIN_S)

    async def restart(self) -> None:
        """SIGTERM, and once it left, start it again."""
        status = await self.terminate()
        assert status == 0, f"{self.name} ended with {status}:\n{log_tail(self.log, 60)}"
        await self.start()

    def end(self) -> None:
        """Leaves nothing of it, whatever state it is in."""
        if self.alive:
            self.kill()

    def family(self) -> list[psutil.Process]:
        """It and the processes that it started, those of its workers included."""
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]

    def memory_mib(self) -> float:
        """Memory that it and its processes have for themselves (USS), in MiB."""
        return float(sum(each.memory_full_info().uss for each in self.family()) / 2**20)

    def descriptors(self) -> int:
        """File descriptors that it and its processes hold open."""
        return int(sum(each.num_fds() for each in self.family()))

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        """To the supervisor first; its workers are in separate groups."""
        family = self.family()
        for each in family:
            with suppress(psutil.NoSuchProcess):  # gone meanwhile
                each.send_signal(number)
        return family


class _Bento(Process):
    """An embedding bento on a port that stays its own over restarts."""

    python: ClassVar[Path]
    service: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(name, folder)
        self.port, self.metrics_port = free_ports(2)
        self.settings = dict(settings or {})

    @property
    def address(self) -> str:
        """`host:port` of its gRPC API."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """As an operator starts it."""
        serve = [str(self.python), "-m", "bentoml", "serve-grpc", self.service, "--api-workers", "1"]
        return [*serve, "--host", "127.0.0.1", "--port", str(self.port), "--enable-reflection"]

    def environment(self) -> Mapping[str, str]:
        """Its settings."""
        given = {"METRICS_PORT": str(self.metrics_port), **self.settings}
        bentoml = {"BENTOML_HOME": str(self.folder / f"{self.name}.home"), "BENTOML_DO_NOT_TRACK": "True"}
        return {**bentoml, **{f"{self.prefix}{name}": value for name, value in given.items()}}

    async def answers(self) -> bool:
        """Whether it says SERVING."""
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                    health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=1.0
                )
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def metric(self, name: str, labels: str = "") -> float:
        """Sum of the samples of one of its metrics, of those whose labels hold `labels`."""
        return metric_of(await fetch(f"http://127.0.0.1:{self.metrics_port}/metrics"), name, labels)


class StubBento(_Bento):
    """The stub: one text takes `text_ms` of its device, whatever faults are in force."""

    python = GATEWAY_PYTHON
    service = "tests.resilience.stub.service:svc"
    prefix = "TORCHLESS_STUB_"

    def __init__(self, name: str, folder: Path, *, text_ms: float = 5.0, **settings: str) -> None:
        self.faults = FaultFile(folder / f"{name}.faults.json")
        given = {"TEXT_MS": str(text_ms), "FAULTS": str(self.faults.path), **settings}
        super().__init__(name, folder, given)

    def set(self, faults: Faults = Faults()) -> None:
        """Puts these faults in force, from its next batch on; without any, mends it."""
        self.faults.write(faults)


class RealBento(_Bento):
    """The embedding bento with MiniLM, on one thread so that several share a small machine."""

    starts_within_s = 120.0
    python = BENTOS_PYTHON
    service = "bentos.embedding.service:svc"
    prefix = "TORCHLESS_EMBEDDING_"

    def __init__(self, name: str, folder: Path, **settings: str) -> None:
        super().__init__(name, folder, {"CPU_THREADS": "1", "CPU_SPIN": "0", "WARM_UP_BATCHES": "1", **settings})


class Gateway(Process):
    """The gateway as `torchless up` starts it, with its settings in a file that may be rewritten while it runs.

    Args:
        folder: Where it writes.
        settings: What is in the file.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__("gateway", folder)
        self.port = free_port()
        self.file = folder / "gateway.yaml"
        self.write(yaml.safe_dump(dict(settings)))

    def write(self, text: str) -> None:
        """Writes the settings' file, all at once."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def command(self) -> list[str]:
        """As `torchless up` starts it."""
        serve = [str(GATEWAY_PYTHON), "-m", "bentoml", "serve", "gateway.service:Gateway"]
        return [*serve, "--host", "127.0.0.1", "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        """Where its settings are."""
        return {
            "TORCHLESS_GATEWAY_CONFIG": str(self.file),
            "BENTOML_HOME": str(self.folder / "gateway.home"),
            "BENTOML_DO_NOT_TRACK": "True",
        }

    async def answers(self) -> bool:
        """Whether it lives."""
        try:
            await fetch(f"http://127.0.0.1:{self.port}/health/live")
        except OSError:
            return False
        return True

    async def get(self, path: str) -> str:
        """The body that it answers at `path`, whatever the status."""
        return await fetch(f"http://127.0.0.1:{self.port}{path}", errors_too=True)

    async def metric(self, name: str, labels: str = "") -> float:
        """Sum of the samples of one of its metrics, of those whose labels hold `labels`."""
        return metric_of(await self.get("/metrics"), name, labels)


class Redis(Process):
    """A Redis that keeps nothing on disk.

    Args:
        program: Path of `redis-server`.
        folder: Where it writes.
    """

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__("redis", folder)
        self.port = free_port()
        self._program = program

    @property
    def url(self) -> str:
        """For settings."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Without snapshots and journal."""
        listen = ["--bind", "127.0.0.1", "--port", str(self.port)]
        return [self._program, *listen, "--save", "", "--appendonly", "no", "--dir", str(self.folder)]

    async def answers(self) -> bool:
        """Whether it answers PING."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        return answer == b"+PONG\r\n"


def _runs(process: psutil.Process) -> bool:
    """Whether it runs, and is not a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def metric_of(exposition: str, name: str, labels: str = "") -> float:
    """Sum of the samples of exactly that name whose labels hold `labels`, in Prometheus' text format."""
    total = 0.0
    for line in exposition.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name and labels in sample:
            total += float(value)
    return total


async def fetch(url: str, *, errors_too: bool = False) -> str:
    """Body at `url`.

    Raises:
        OSError: Nothing answers; or unless `errors_too`, the answer is an error.
    """

    def body() -> str:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                if not errors_too:
                    raise OSError(f"{url} answered {error.code}") from error
                return error.read().decode()

    return await asyncio.to_thread(body)
