"""Answers of the health routes."""

from __future__ import annotations

from typing import Literal

from gateway.schemas.inputs import AnswerModel


class Alive(AnswerModel):
    """The gateway answers."""

    status: Literal["alive"]
    """Always `alive`."""


class ServiceReadiness(AnswerModel):
    """State of one service."""

    ready: bool
    """Whether it takes calls."""
    reason: str | None
    """Why not."""


class Readiness(AnswerModel):
    """State of the gateway and of each service behind it."""

    ready: bool
    """Whether all of them are ready."""
    services: dict[str, ServiceReadiness]
    """By capability."""
