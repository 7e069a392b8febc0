"""Runs services under supervisord (http://supervisord.org): configures it, polls it, and stops it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

from torchless.cli.errors import StackError
from torchless.cli.orphans import VARIABLE
from torchless.cli.services import Service
from torchless.workers import OOMKills

STEADY_AFTER_S = 5
"""A service that runs this long, in seconds, counts as started, and its restarts are counted from zero again."""
_SOCKET = "supervisor.sock"
_UNANSWERED = (OSError, HTTPException, xmlrpc.client.Error)


class State(StrEnum):
    """State of a process, by supervisord's names."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a service, as supervisord reports it."""

    name: str
    """The service's name."""
    state: State
    """Its state."""
    pid: int
    """Its process id; 0: it does not run."""
    stopped_at: int
    """When it last ended, in seconds since 1970; 0: never."""
    spawn_error: str
    """Why it could not be started; empty: it could."""


class Supervisord:
    """One supervisord with its services, as a child of this process.

    Args:
        services: The services, in the order in which they start.
        folder: Existing folder for its configuration and its own log.
        logs: Existing folder for the logs of the services.
        directory: Working directory of the services.
        marker: Value of the variable `TORCHLESS_STACK` in every process of the stack.
        grace_s: Time that a service has to stop before it is killed, in seconds.
        start_retries: How often a service that dies at once is restarted; attempt n starts after n seconds.
    """

    def __init__(
        self,
        services: Sequence[Service],
        folder: Path,
        logs: Path,
        *,
        directory: Path,
        marker: str,
        grace_s: int,
        start_retries: int,
    ) -> None:
        self._services = services
        self._folder = folder
        self._logs = logs
        self._directory = directory
        self._marker = marker
        self._grace_s = grace_s
        self._start_retries = start_retries
        self._own_log = folder / "supervisord.log"
        self._socket_folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._oom_kills = OOMKills()

    def log(self, name: str) -> Path:
        """The log file of a service."""
        return self._logs / f"{name}.log"

    async def start(self, wait_s: float = 15.0) -> None:
        """Starts supervisord, which starts every service; returns when supervisord answers.

        Raises:
            StackError: It does not answer within `wait_s` seconds.
        """
        # Not below `folder`: the path of a Unix socket is limited to about a hundred characters.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="torchless-"))
        (self._folder / "supervisord.conf").write_text(self._configuration(self._socket_folder))
        for service in self._services:
            self.log(service.name).unlink(missing_ok=True)
            (self._folder / f"{service.name}-bentoml").mkdir(exist_ok=True)
        self._own_log.unlink(missing_ok=True)
        log = self._folder / "supervisord.out"
        self._child = self._spawn(log)
        until = time.monotonic() + wait_s
        while not self.processes():
            if not self.alive or time.monotonic() > until:
                raise StackError(f"supervisord did not start; see {log}")
            await asyncio.sleep(0.05)

    def processes(self) -> list[Process]:
        """The process of every service; empty if supervisord does not answer."""
        with self._proxy() as supervisor:
            try:
                answer = cast(list[dict[str, Any]], supervisor.getAllProcessInfo())
            except _UNANSWERED:
                return []  # it is starting or stopping
        return [Process(i["name"], State(i["statename"]), i["pid"], i["stop"], i["spawnerr"]) for i in answer]

    def how_it_ended(self, name: str) -> str:
        """How the last process of a service ended, from the log: the API does not tell it of one that died early."""
        endings = re.findall(rf"exited: {re.escape(name)} \((.+?);", self._own_log.read_text(errors="replace"))
        ending = endings[-1] if endings else "for an unknown reason"
        return f"{ending}; {self._oom_kills.reason()}" if "SIGKILL" in ending else ending

    def give_up(self, name: str) -> None:
        """Ends the process of a service and does not restart it."""
        with self._proxy() as supervisor, contextlib.suppress(*_UNANSWERED):
            supervisor.stopProcess(name, False)

    @property
    def pid(self) -> int | None:
        """Process id of supervisord; None before it is started."""
        return None if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether supervisord runs."""
        return self._child is not None and self._child.poll() is None

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[Any]:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._socket_folder}/{_SOCKET}")
        with contextlib.closing(transport):
            yield xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def _spawn(self, log: Path) -> subprocess.Popen[bytes]:
        configuration = str(self._folder / "supervisord.conf")
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603  # our own Python and our own file
                [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", configuration],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, VARIABLE: self._marker},
                # So that Ctrl-C in the terminal reaches only this process, which then stops the services in order.
                start_new_session=True,
            )

    def ask_to_stop(self) -> None:
        """Starts to stop the services in reverse order, and then supervisord."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def wait(self, seconds: float) -> None:
        """Waits up to `seconds` seconds for supervisord to end."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)

    def kill(self) -> None:
        """Kills supervisord; its services become orphans."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _configuration(self, socket_folder: Path) -> str:
        lines = [
            "[unix_http_server]",
            f"file = {_escaped(socket_folder / _SOCKET)}",
            "[supervisord]",
            "nodaemon = true",
            f"directory = {_escaped(self._directory)}",
            f"logfile = {_escaped(self._own_log)}",
            f"pidfile = {_escaped(self._folder / 'supervisord.pid')}",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for priority, service in enumerate(self._services):
            lines += self._program(service, priority)
        return "\n".join(lines) + "\n"

    def _program(self, service: Service, priority: int) -> list[str]:
        home = self._folder / f"{service.name}-bentoml"
        variables = {
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONUNBUFFERED": "1",
            VARIABLE: f"{self._marker}/{service.name}",
            **service.environment,
        }
        # `env` sets the variables, because supervisord's `environment` cannot quote every value.
        env = shutil.which("env") or "/usr/bin/env"
        command = shlex.join([env, *(f"{key}={value}" for key, value in variables.items()), *service.command])
        return [
            f"[program:{service.name}]",
            f"command = {_escaped(command)}",
            f"priority = {priority}",
            "autorestart = true",
            f"startsecs = {STEADY_AFTER_S}",
            f"startretries = {self._start_retries}",
            "stopsignal = TERM",
            f"stopwaitsecs = {self._grace_s}",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {_escaped(self.log(service.name))}",
            "stdout_logfile_maxbytes = 20MB",
            "stdout_logfile_backups = 1",
        ]


def _escaped(value: object) -> str:
    """Escapes a value of supervisord's configuration."""
    text = str(value)
    if re.search(r"\n|\s[;#]", text):
        raise StackError(f"supervisord does not support a line break, or ';' or '#' after a space: {text!r}")
    return text.replace("%", "%%")
