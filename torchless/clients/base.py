"""Base of the typed clients: endpoints, health and calls."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, ClassVar, Self

from torchless.clients.call import CallContext
from torchless.clients.caller import Caller
from torchless.clients.endpoint_state import EndpointState, Health
from torchless.clients.endpoints.endpoint import Endpoint
from torchless.clients.endpoints.pool import EndpointPool
from torchless.clients.metrics import ClientMetrics, default_metrics
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import no_reason, unreachable
from torchless.contracts.errors import TorchlessError


class CapabilityClient:
    """Base of the typed clients. Create it inside the event loop that will use it.

    Every method raises only `TorchlessError`; its kind says what went wrong.

    Args:
        settings: How to call the service, or only its address.
        metrics: Where calls and endpoints are counted; None: in Prometheus' default registry.
    """

    capability: ClassVar[str]
    """Name of the capability in messages, for instance `embedding`."""
    service_name: ClassVar[str]
    """Full name of the gRPC service, under which it reports its health."""
    make_stub: ClassVar[type[Any]]
    """Makes the service's stub over a channel."""

    def __init__(self, settings: ClientSettings | str, metrics: ClientMetrics | None = None) -> None:
        self._settings = ClientSettings(address=settings) if isinstance(settings, str) else settings
        self._metrics = metrics or default_metrics()
        self._pool: EndpointPool[Any] = EndpointPool(self._settings, self.capability, self._endpoint)
        self._caller: Caller[Any] = Caller(self.capability, self._pool, self._settings, self._metrics)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Connects and starts the health checks; otherwise the first call does both."""
        self._pool.start()

    async def reconfigure(self, settings: ClientSettings) -> None:
        """Applies new settings; calls in flight keep the old ones.

        The settings of the `connection` group apply to new endpoints only.
        """
        await self._pool.reconfigure(settings)  # raises for a malformed address, before anything changes
        self._settings = settings
        self._caller.reconfigure(settings)

    async def close(self) -> None:
        """Closes the channels; calls in flight end with UNREACHABLE."""
        await self._pool.close()

    def states(self) -> list[EndpointState]:
        """The current state of each endpoint: health, breaker and calls in flight."""
        return self._pool.states()

    def is_down(self) -> bool:
        """Whether, as far as is known, no endpoint takes calls: each is unhealthy or has an open breaker."""
        return self._pool.is_down()

    def endpoint_changes(self) -> int:
        """How often the health of an endpoint changed, or an endpoint was removed.

        While the number stays the same, no endpoint was restarted: what the service reported about its models holds.
        """
        return self._pool.changes()

    def may_serve(self) -> bool:
        """Whether, as far as is known, an endpoint is SERVING; also while nothing is known yet."""
        return self._pool.may_serve()

    async def ready(self, context: CallContext = CallContext()) -> bool:
        """Checks now whether an endpoint is SERVING (grpc.health.v1).

        Raises:
            TorchlessError: UNREACHABLE, if no endpoint answers within the deadline.
        """
        return await self.obstacle(context) is None

    async def obstacle(self, context: CallContext = CallContext()) -> TorchlessError | None:
        """Checks now why no endpoint is SERVING; None: one is.

        Returns:
            The error that the service gives as its reason, for instance LOADING or MODEL_UNAVAILABLE; UNREACHABLE, if
            it gives none.

        Raises:
            TorchlessError: UNREACHABLE, if no endpoint answers within the deadline.
        """
        self.start()
        deadline = self._caller.deadline_of(context)
        await self._pool.known(deadline)
        obstacle: TorchlessError | None = None
        watches = [endpoint.watch for endpoint in self._pool.endpoints()]
        checks = [asyncio.ensure_future(watch.report(deadline.timeout_s)) for watch in watches]
        try:
            for answer in asyncio.as_completed(checks):
                report = await answer
                if report.health is Health.SERVING:
                    return None
                if report.health is Health.NOT_SERVING:
                    obstacle = obstacle or report.reason or no_reason(self.capability)
        finally:
            for check in checks:
                check.cancel()
        if obstacle is None:
            raise unreachable(self.capability)
        return obstacle

    def _endpoint(self, address: str, settings: ClientSettings) -> Endpoint[Any]:
        return Endpoint(
            address,
            capability=self.capability,
            service_name=self.service_name,
            make_stub=type(self).make_stub,
            settings=settings,
            metrics=self._metrics.of_endpoint(self.capability, address),
        )
