"""The settings of the log, the same for the gateway and the services."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from torchless.settings.base import SettingsGroup


class LogSettings(SettingsGroup):
    """The log, on standard error; docs/logs.md describes its lines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe lines written. `INFO` has a line for each request, `WARNING` only for requests that failed, `DEBUG`
    also for health checks and metrics. Lines of libraries are written from `WARNING` on."""
    format: Literal["auto", "json", "text"] = "auto"
    """`json`: each line is a JSON object; `text`: lines for people; `auto`: text on a terminal, otherwise JSON."""
    sample: float = Field(default=1.0, ge=0, le=1)
    """Share of the requests that get a line. The request id decides, so the gateway and the services choose the same
    requests. Requests that failed and slow ones always get a line."""
    slow_ms: float = Field(default=1000.0, ge=0)
    """Time until the response begins from which a request is slow, in milliseconds."""
