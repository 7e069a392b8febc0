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


class NewestSettings(AnswerModel):
    """State of the settings' file."""

    refused: str | None
    """Why what it holds is not in force, and older settings are; null: it is, or there is no file."""


class Readiness(AnswerModel):
    """State of the gateway and of each service behind it."""

    ready: bool
    """Whether all of them are ready."""
    services: dict[str, ServiceReadiness]
    """By capability."""
    settings: NewestSettings
    """Whether a change of the settings was refused, by the worker that answers. It makes nothing less ready."""
