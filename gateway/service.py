"""The gateway as a BentoML service: `bentoml serve gateway.service:Gateway`."""

from __future__ import annotations

import signal
import sys

import bentoml
import uvicorn.config

from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from torchless.process import EXIT_CONFIGURATION, leave_with_parent
from torchless.settings import SettingsError
from torchless.telemetry.logs import configure_logging
from torchless.workers import watch_workers

try:
    settings = GatewaySettings.load()
except SettingsError as error:
    # BentoML would add a traceback of 70 lines.
    sys.stderr.write(f"{error}\n")
    sys.exit(EXIT_CONFIGURATION)
configure_logging(settings.log, "gateway")
application = WorkerApp(settings)
# BentoML makes its `uvicorn.Config` later, and leaves the choice of the protocol to uvicorn.
uvicorn.config.HTTP_PROTOCOLS["auto"] = application.connect  # type: ignore[assignment]
watch_workers()


@bentoml.service(
    name="torchless-gateway",
    workers=settings.workers,
    # The gateway answers an expired deadline in each API's form, so BentoML's timeout must not fire first. It cannot be
    # turned off, and holds 0.8 kB a request until it expires, even if the request was answered long before.
    traffic={"timeout": settings.limits.max_deadline_s + 5},
    # The gateway has its own metrics under the same path.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # BentoML would make a span for each request, and nothing collects them.
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(application, path="/")
class Gateway:
    """The HTTP APIs over the gRPC services; `gateway.app` has the routes."""

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        """Opens the application in this worker, and ends the worker with its supervisor."""
        leave_with_parent()
        application.draining.watch(signal.SIGTERM)
        await application.open()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Closes the application."""
        await application.close()
