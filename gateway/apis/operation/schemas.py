"""Responses of the health routes."""

from __future__ import annotations

from typing import Literal

from gateway.apis.field_types import AnswerModel


class Alive(AnswerModel):
    """The gateway answers."""

    status: Literal["alive"]
    """Always `alive`."""


class BreakerReadiness(AnswerModel):
    """State of an endpoint's circuit breaker."""

    state: Literal["closed", "half_open", "open"]
    """Whether it lets calls through: all, one at a time as a probe, or none."""
    trips: int
    """Number of times that it opened."""
    next_probe_s: float
    """Seconds until an open one lets a probe through; 0: now, or it is not open."""


class EndpointReadiness(AnswerModel):
    """State of one endpoint of a service, as the worker that answers sees it."""

    address: str | None
    """Its address; null unless the request has a valid API key, or comes from the gateway's machine."""
    health: Literal["unknown", "serving", "not_serving", "unreachable"]
    """Its health."""
    breaker: BreakerReadiness
    """Its breaker."""
    calls_in_flight: int
    """Calls in flight."""


class ServiceReadiness(AnswerModel):
    """State of one service."""

    ready: bool
    """Whether it accepts calls."""
    reason: str | None
    """Why not."""
    endpoints: list[EndpointReadiness]
    """Its endpoints."""


class NewestSettings(AnswerModel):
    """State of the settings file."""

    refused: str | None
    """Why the newest file is refused and older settings are in force; null: it is in force, or there is no file."""


class Readiness(AnswerModel):
    """State of the gateway and of each service behind it."""

    ready: bool
    """Whether all services are ready."""
    services: dict[str, ServiceReadiness]
    """By capability."""
    settings: NewestSettings
    """Whether the worker that answers refused a change of the settings. This does not affect readiness."""
