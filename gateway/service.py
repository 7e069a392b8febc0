"""The gateway as a BentoML service: `bentoml serve gateway.service:Gateway`."""

from __future__ import annotations

import signal

import bentoml

from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from torchless.process import leave_with_parent
from torchless.telemetry.logs import configure_logging

settings = GatewaySettings.load()
application = WorkerApp(settings)


@bentoml.service(
    name="torchless-gateway",
    workers=settings.workers,
    # The gateway's deadlines are answered in each API's form, so BentoML's must not come first. It cannot be turned
    # off, and holds 0.8 kB a request until it runs out, even if the request is answered long before: keep it short.
    traffic={"timeout": settings.limits.max_deadline_s + 5},
    # The gateway has its own metrics under the same path.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # A span a request that nothing collects.
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(application, path="/")
class Gateway:
    """HTTP in, gRPC out; everything is in `gateway.app`."""

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def open(self) -> None:
        """Opens the application in this worker, which is not to outlive its supervisor."""
        leave_with_parent()
        configure_logging(settings.log_level)
        application.draining.watch(signal.SIGTERM)
        await application.open()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Closes it."""
        await application.close()
