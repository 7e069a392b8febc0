"""Builds a BentoML service that `bentoml serve-grpc` can serve.

BentoML 1.4 serves gRPC for `bentoml.legacy.Service` only; everything specific to it is in this file, in `lifecycle` and
in `one_process`.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, TypeVar

import bentoml
import grpc
from bentoml._internal.configuration.containers import BentoMLContainer

from bentos.serving.capability import Capability, Mount
from bentos.serving.health import HealthInterceptor
from bentos.serving.interceptor import CallInterceptor
from bentos.serving.lifecycle import Lifecycle
from bentos.serving.log_reload import LogReload
from bentos.serving.metrics import serve_metrics
from bentos.serving.one_process import is_bentoml_command, serve_in_one_process
from bentos.serving.readiness import Readiness
from bentos.serving.settings import ServingSettings
from torchless.process import EXIT_CONFIGURATION
from torchless.settings import SettingsError
from torchless.telemetry.logs import configure_logging

S = TypeVar("S", bound=ServingSettings)
_MIB = 1024 * 1024
SHORTEST_PING_INTERVAL_S = 5.0
"""Shortest interval of a client's keepalive pings over an idle connection, in seconds: half of the shortest that our
clients can be set to."""


def load_settings(kind: type[S]) -> S:
    """The settings of this process. If they cannot be used, a command of BentoML ends with a message.

    Args:
        kind: The class of the settings.

    Raises:
        SettingsError: They cannot be used, and another program imports the service.
    """
    try:
        return kind.load()
    except SettingsError as error:
        if not is_bentoml_command():
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_CONFIGURATION)


def build_service(name: str, mount: Mount, settings: ServingSettings) -> Any:
    """Describes a service named `name`; starts nothing, because other commands of BentoML import it too."""
    _configure_bentoml(settings)
    if is_bentoml_command():
        configure_logging(settings.log, name.removeprefix("torchless-"))
        serve_in_one_process()
    with warnings.catch_warnings():
        # Deprecated in favour of a class that cannot be served over gRPC.
        warnings.simplefilter("ignore")
        service: Any = bentoml.legacy.Service(name)
    readiness, log = Readiness(), LogReload(settings)

    def add(capability: Capability, server: grpc.aio.Server) -> None:
        configure_logging(settings.log, name.removeprefix("torchless-"))
        mount.add_to_server(capability, server)
        log.begin()
        Lifecycle(mount.full_name, capability, readiness, settings).attach(server)
        serve_metrics(settings.metrics_host, settings.metrics_port)

    service.add_grpc_interceptor(HealthInterceptor, full_name=mount.full_name, readiness=readiness)
    service.add_grpc_interceptor(
        CallInterceptor,
        readiness=readiness,
        lost_device_is_final=mount.lost_device_is_final,
        watches=mount.watches,
        log=log,
        describe=mount.describe,
    )
    service.mount_grpc_servicer(mount.make, add, [mount.full_name])
    return service


def keepalive_options(shortest_ping_interval_s: float) -> tuple[tuple[str, int], ...]:
    """Options of a gRPC server that accepts a ping at this interval over an idle connection.

    By default, a server closes a connection (GOAWAY, too_many_pings) that pings more often than every five minutes, for
    instance a watch without news. https://github.com/grpc/grpc/blob/master/doc/keepalive.md names the option by its
    constant, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS.
    """
    return (("grpc.http2.min_ping_interval_without_data_ms", int(shortest_ping_interval_s * 1000)),)


def _configure_bentoml(settings: ServingSettings) -> None:
    config = BentoMLContainer.config.api_server
    # BentoML's metrics leave out mounted servicers, and need a process.
    config.metrics.enabled.set(False)
    # There are no runners to wait for.
    config.runner_probe.enabled.set(False)
    config.grpc.max_message_length.set(settings.max_message_mib * _MIB)
    _patch_server()


def _patch_server() -> None:
    """Changes parts of BentoML's gRPC server that have no setting; may be called more than once."""
    from bentoml._internal.server import grpc_app

    server_class: Any = grpc_app.Server
    theirs = server_class.options.fget
    if getattr(theirs, "is_ours", False):
        return

    def options(server: Any) -> Any:
        return (*theirs(server), *keepalive_options(SHORTEST_PING_INTERVAL_S))

    def interceptors(server: Any) -> Any:
        # Only our own. BentoML's access log answers a failed handler with BentoML's message type, which is wrong for
        # other services, and its tracing took a tenth of the event loop for spans that nothing collects.
        return list(server.bento_service.interceptors)

    options.is_ours = True  # type: ignore[attr-defined]
    server_class.options = property(options)
    server_class.interceptors = property(interceptors)
