"""Makes `bentoml serve-grpc` one process that serves, instead of a supervisor with workers.

BentoML's supervisor (kantoku) restarts a worker that dies for ever, and hides its end. One worker drives one device, so
there is nothing to supervise: the end of the process is the end of the service, and the program that started it, for
example supervisord or Kubernetes, sees its exit status and decides. docs/decisions/0020 has the reasons.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from torchless.process import EXIT_CONFIGURATION

logger = logging.getLogger(__name__)

_GRPC_WORKER: Final = "grpc_api_server"
_WORKER_ID: Final = "$(CIRCUS.WID)"


def is_bentoml_command() -> bool:
    """Whether this process is a command of BentoML, and not a worker that its supervisor started."""
    from bentoml._internal.context import server_context

    return server_context.service_type == "cli"


def serve_in_one_process() -> None:
    """Replaces BentoML's supervisor in this process; may be called more than once.

    `bentoml serve`, which would answer HTTP without a model behind it, ends with a message instead.
    """
    from bentoml import serving
    from bentoml._internal import log
    from bentoml._internal.utils import circus

    # The command has configured the log. Doing that again, as a worker does, would turn our loggers off.
    log.configure_server_logging = lambda: None
    # BentoML imports stubs that an old protobuf compiler generated.
    warnings.filterwarnings("ignore", message="google.protobuf.service module is deprecated", category=UserWarning)
    for module, name, ours in ((serving, "create_watcher", _create_worker), (circus, "Arbiter", _OneProcess)):
        setattr(module, name, ours)


@dataclass(frozen=True, slots=True)
class _Worker:
    """What BentoML would start as a worker: `python <arguments>`."""

    arguments: Sequence[str]

    def serve(self) -> None:
        """Serves in this process until it is stopped."""
        from bentoml_cli.worker.grpc_api_server import main

        refuse_used_port(*(self.arguments[self.arguments.index(name) + 1] for name in ("--host", "--port")))
        # The first two arguments are `-m` and the module.
        arguments = [argument.replace(_WORKER_ID, "1") for argument in self.arguments[2:]]
        main.main(arguments, prog_name=self.arguments[1], standalone_mode=False)


def refuse_used_port(host: str, port: str) -> None:
    """Checks that no other program listens on a port.

    gRPC would share it with another bento (SO_REUSEPORT), and each would get half of the calls. Without that option it
    could not listen again after a restart: BentoML binds the port in a way that connections of the last process, which
    TCP remembers for a minute, forbid.

    Raises:
        OSError: One does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is used by another program; choose another with --port") from error
        # gRPC names other obstacles, such as an address that this machine does not have.


def _create_worker(name: str, args: Sequence[str], **options: Any) -> _Worker:
    """Stands for `bentoml.serving.create_watcher`."""
    bento = args[2]
    if name != _GRPC_WORKER:
        logger.error("this service answers gRPC only: start it with `bentoml serve-grpc %s`", bento)
        sys.exit(EXIT_CONFIGURATION)
    if (wanted := options.get("numprocesses", 1)) > 1:
        logger.warning(
            "1 worker is started instead of %d, because one process drives the device; start more replicas on other "
            "ports to use more, and add `--api-workers 1` to leave out this line",
            wanted,
        )
    return _Worker(args)


class _OneProcess:
    """Stands for kantoku's arbiter: serves here, and ends when serving ends.

    Args:
        watchers: The one worker.
        ignored: Sockets, ports and plugins of the supervisor.
    """

    running = True

    def __init__(self, watchers: Sequence[_Worker], **ignored: Any) -> None:
        (self._worker,) = watchers
        self.exit_stack = ExitStack()

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Serves until the process is stopped; `cb`, which would print an HTTP address, is not called."""
        # BentoML's temporary folder for runners, of which there are none.
        self.exit_stack.close()
        try:
            self._worker.serve()
        except Exception as error:
            logger.debug("serving failed", exc_info=error)
            logger.error("the service cannot run: %s", " ".join(str(error).split()) or type(error).__name__)
            sys.exit(1)

    def stop(self) -> None:
        """Does nothing: the process stops on signals."""
