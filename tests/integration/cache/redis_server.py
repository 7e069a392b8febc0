"""A real Redis in a separate process, which a test stops, starts and halts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.waiting import wait_until
from torchless.cli.free_ports import free_port

PASSWORD = "keeps-out-neighbours"
_STARTS_WITHIN_S = 20.0


class RedisServer:
    """Redis on a port of loopback, with a password and without persistence.

    Args:
        program: Path of `redis-server`.
        folder: Where it works.
        certificate: Certificate and key with which it speaks TLS; None: it does not.
    """

    def __init__(self, program: str, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self._certificate = certificate
        self._program = program
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        scheme = "rediss" if self._certificate else "redis"
        return f"{scheme}://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [self._program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self._listen()]
        command += ["--requirepass", PASSWORD, "--dir", str(self._folder), "--daemonize", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        process = self._process

        def listens() -> bool:
            assert process.poll() is None, (self._folder / "redis.log").read_text()
            return self._listens()

        wait_until(listens, "redis-server listens", within_s=_STARTS_WITHIN_S)

    def kill(self) -> None:
        """Ends it at once, with all that it holds."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def halt(self) -> None:
        """It accepts connections and answers nothing, until `go_on`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def _listen(self) -> list[str]:
        if self._certificate is None:
            return ["--port", str(self.port)]
        files = ["--tls-cert-file", str(self._certificate[0]), "--tls-key-file", str(self._certificate[1])]
        return ["--port", "0", "--tls-port", str(self.port), *files, "--tls-auth-clients", "no"]

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False
