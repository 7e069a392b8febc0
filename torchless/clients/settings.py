"""Settings that every client shares."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.addresses import parse
from torchless.settings import SettingsGroup


class DiscoverySettings(SettingsGroup):
    """How names are turned into endpoints."""

    interval_s: float = Field(default=10.0, gt=0, le=3600)
    """Time after which `dns:///` names are resolved again, in seconds; after a failure they are at once."""
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Time that a name has to be resolved, in seconds. The addresses last known stay in use after that."""


class EndpointHealthSettings(SettingsGroup):
    """How each endpoint's own word on its health is heard (grpc.health.v1)."""

    interval_s: float = Field(default=5.0, gt=0, le=3600)
    """Time between checks of an endpoint that has no Watch, and longest time before a broken Watch is opened again, in
    seconds."""
    timeout_s: float = Field(default=1.0, gt=0, le=60)
    """Time that an endpoint has to answer a check after a call to it met its deadline, in seconds; one that does not is
    left out until it does."""


class BreakerSettings(SettingsGroup):
    """The circuit breaker of each endpoint. Only UNREACHABLE and DEADLINE count."""

    failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row after which an endpoint gets no calls."""
    open_s: float = Field(default=60.0, gt=0, le=3600)
    """Time after which one call may try it again, in seconds. It may as soon as the endpoint says that it is serving
    after it did not."""
    deadline_counts_from_s: float = Field(default=0.5, ge=0, le=60)
    """Deadlines shorter than this, in seconds for each started 4 KiB of the request up to 80 KiB, do not count when
    they are missed: an impatient caller must not take an endpoint away from the others."""


class RetrySettings(SettingsGroup):
    """When a call is tried again. Never past its deadline."""

    attempts: int = Field(default=3, ge=1, le=10)
    """Most attempts of one call, the first included."""
    base_s: float = Field(default=0.02, ge=0, le=10)
    """Longest pause before the second attempt, in seconds; it doubles with each. The pause itself is drawn evenly from
    0 up to that (full jitter)."""
    max_s: float = Field(default=1.0, ge=0, le=60)
    """Longest pause before any attempt, in seconds."""
    budget: float = Field(default=0.1, ge=0, le=1)
    """Retries as a share of calls, over time."""
    reserve: int = Field(default=100, ge=0, le=10_000)
    """Most retries that are saved up for a sudden loss of an endpoint."""
    stream_patience_s: float = Field(default=60.0, ge=0, le=3600)
    """Time that a bulk stream waits for its next answer, over all attempts, in seconds: more than a frame takes. 0:
    nothing is tried again, and no answer comes too late."""


class ClientSettings(SettingsGroup):
    """How one capability is called."""

    is_optional: ClassVar[bool] = False
    """Whether the service may be left out, by an empty address."""
    address: str
    """Where the service listens: `host:port`, several of them with commas between, or `dns:///name:port` for all the
    addresses that a name has."""
    deadline_s: float = Field(default=30.0, gt=0, le=3600)
    """Deadline of a call whose caller gives none, in seconds."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest message sent or received, in MiB. Token-level vectors of a full batch are the largest."""
    keepalive_s: float = Field(default=30.0, ge=10)
    """Idle time after which the peer is asked whether it is still there, in seconds."""
    keepalive_timeout_s: float = Field(default=10.0, gt=0)
    """Time that the peer has to answer that, in seconds."""
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Time that a connection has to come about, in seconds."""
    reconnect_min_s: float = Field(default=0.1, gt=0)
    """First pause before connecting again, in seconds; it doubles up to `reconnect_max_s`."""
    reconnect_max_s: float = Field(default=1.0, gt=0)
    """Longest pause before connecting again, in seconds. So long may it take until
    an endpoint that is back is noticed."""
    slow_start_s: float = Field(default=10.0, ge=0, le=600)
    """Time over which an endpoint that has just come up gets its full share of calls, in seconds; 0: at once."""
    discovery: DiscoverySettings = DiscoverySettings()
    """How names are resolved."""
    endpoint_health: EndpointHealthSettings = EndpointHealthSettings()
    """How each endpoint's health is heard."""
    breaker: BreakerSettings = BreakerSettings()
    """The circuit breaker of each endpoint."""
    retry: RetrySettings = RetrySettings()
    """When calls are tried again."""
    concurrency: ConcurrencySettings = ConcurrencySettings(enabled=False)
    """The limit on calls in flight."""

    @field_validator("address", mode="before")
    @classmethod
    def _of_a_list(cls, given: Any) -> Any:
        """A YAML list is taken as well."""
        return ",".join(map(str, given)) if isinstance(given, list | tuple) else given

    @model_validator(mode="after")
    def _addresses_are_told_apart(self) -> Self:
        if self.address or not self.is_optional:
            parse(self.address)
        return self
