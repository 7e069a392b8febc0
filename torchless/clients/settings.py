"""Settings of the clients: one block of defaults for all services, and what each service has on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.addresses import parse
from torchless.settings import SettingsGroup


class ConnectionSettings(SettingsGroup):
    """Connections to endpoints. After a reload they apply to new endpoints only."""

    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Timeout of connecting, in seconds."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest message sent or received, in MiB. Token-level vectors of a full batch are the largest."""
    keepalive_s: float = Field(default=30.0, ge=10)
    """Idle time after which the endpoint is pinged, in seconds."""
    keepalive_timeout_s: float = Field(default=10.0, gt=0)
    """Timeout of a ping, in seconds; the connection then counts as lost."""
    reconnect_min_s: float = Field(default=0.1, gt=0)
    """First pause before connecting again, in seconds; it doubles up to `reconnect_max_s`."""
    reconnect_max_s: float = Field(default=1.0, gt=0)
    """Longest pause before connecting again, in seconds. An endpoint that is back is noticed within this time."""


class DiscoverySettings(SettingsGroup):
    """DNS discovery of endpoints, for addresses such as `dns:///name:port`."""

    interval_s: float = Field(default=10.0, gt=0, le=3600)
    """Time between two lookups of a name, in seconds. After a failed call it is looked up at once."""
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Timeout of a lookup, in seconds. After that the last known addresses stay in use."""


class EndpointHealthSettings(SettingsGroup):
    """Health checks of endpoints (grpc.health.v1)."""

    interval_s: float = Field(default=5.0, gt=0, le=3600)
    """Time between checks of an endpoint that does not implement Watch, and longest pause before a broken Watch is
    opened again, in seconds."""
    timeout_s: float = Field(default=1.0, gt=0, le=60)
    """Timeout of a check, in seconds. A check follows each call that missed its deadline; an endpoint that does not
    answer it gets no calls until it does."""


class BreakerSettings(SettingsGroup):
    """The circuit breaker of each endpoint. Only UNREACHABLE and DEADLINE count as failures."""

    failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row after which the breaker opens: the endpoint gets no calls."""
    open_s: float = Field(default=60.0, gt=0, le=3600)
    """Time after which an open breaker lets a probe through, in seconds; or as soon as the endpoint answers
    health checks again."""
    deadline_counts_from_s: float = Field(default=0.5, ge=0, le=60)
    """Missed deadlines shorter than this do not count, in seconds for each started 4 KiB of the request up to 80 KiB:
    an impatient caller must not take an endpoint away from the others."""


class RetrySettings(SettingsGroup):
    """Retries. They never outlast the deadline of the call."""

    attempts: int = Field(default=3, ge=1, le=10)
    """Most attempts of one call, including the first."""
    base_s: float = Field(default=0.02, ge=0, le=10)
    """Longest pause before the second attempt, in seconds; it doubles with each attempt. The pause is drawn at random
    between 0 and that (full jitter)."""
    max_s: float = Field(default=1.0, ge=0, le=60)
    """Longest pause before any attempt, in seconds."""
    budget: float = Field(default=0.1, ge=0, le=1)
    """Retries as a share of calls, over time."""
    reserve: int = Field(default=100, ge=0, le=10_000)
    """Most retries that are saved up for the sudden loss of an endpoint."""
    stream_idle_timeout_s: float = Field(default=60.0, ge=0, le=3600)
    """Time that a bulk stream waits for its next answer, over all attempts, in seconds; longer than a frame takes.
    0: no timeout, and no retries."""


class ClientDefaults(SettingsGroup):
    """How services are called: the settings that all services share."""

    connection: ConnectionSettings = ConnectionSettings()
    """Connections to endpoints."""
    discovery: DiscoverySettings = DiscoverySettings()
    """DNS discovery of endpoints."""
    endpoint_health: EndpointHealthSettings = EndpointHealthSettings()
    """Health checks of endpoints."""
    slow_start_s: float = Field(default=10.0, ge=0, le=600)
    """Time over which an endpoint that has just come up ramps up to its full share of calls, in seconds; 0: at once."""
    breaker: BreakerSettings = BreakerSettings()
    """The circuit breaker of each endpoint."""
    retry: RetrySettings = RetrySettings()
    """Retries."""
    concurrency: ConcurrencySettings = ConcurrencySettings(enabled=False)
    """The adaptive limit on calls in flight."""


class ServiceAddress(SettingsGroup):
    """Where a service is, and how long a call to it may take."""

    address: str
    """Where the service listens: `host:port`, several of them separated by commas, or `dns:///name:port` for all
    addresses of a name."""
    deadline_s: float = Field(default=30.0, gt=0, le=3600)
    """Default deadline of a call, in seconds."""


class ClientSettings(ClientDefaults, ServiceAddress):  # in this order the address comes first in documents
    """How one service is called."""

    is_optional: ClassVar[bool] = False
    """Whether the address may be empty: there is no such service."""

    @classmethod
    def own_settings(cls) -> frozenset[str]:
        """Names of the settings that the service has on its own: they are never taken from the shared defaults."""
        classes = cls.__mro__[: cls.__mro__.index(ClientSettings)]
        declared = {name for each in classes for name in each.__annotations__}
        return frozenset(cls.model_fields) & (declared | set(ServiceAddress.model_fields))

    @classmethod
    def complete(cls, service: Any, defaults: ClientDefaults) -> Any:
        """The settings of one service, completed from the defaults of all services.

        Args:
            service: What is set for the service, as nested tables or as a settings object, of which only the given
                fields count.
            defaults: The defaults of all services.

        Returns:
            Tables for `model_validate`: what is set for the service wins, one by one. `service` itself, when it is
            neither tables nor settings, so that validation refuses it.
        """
        given = service.model_dump(exclude_unset=True) if isinstance(service, BaseModel) else service
        if not isinstance(given, Mapping):
            return service
        return _merge(defaults.model_dump(exclude=set(cls.own_settings())), given)

    @field_validator("address", mode="before")
    @classmethod
    def _join_list(cls, address: Any) -> Any:
        """A YAML list is accepted as well."""
        return ",".join(map(str, address)) if isinstance(address, list | tuple) else address

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if self.address or not self.is_optional:
            parse(self.address)
        return self


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        given = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        nested = isinstance(given, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merge(merged[name], given) if nested else given
    return merged
