"""The events of a stack, and the events that a service writes to its log."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torchless.cli.log_lines import text_of
from torchless.cli.services import Service
from torchless.workers import WORKER_ENDED


@dataclass(frozen=True, slots=True)
class Ready:
    """A service became ready."""

    service: Service
    """The service."""
    after_s: float
    """Seconds since the stack started, or since the service last died."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A service that was not ready yet ended, or says that it will not become ready."""

    service: Service
    """The service."""
    reason: str
    """Why, in one line."""


@dataclass(frozen=True, slots=True)
class Retries:
    """A service cannot start yet and tries again."""

    service: Service
    """The service."""
    reason: str
    """What it waits for, in one line."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a service that was ready ended by itself; supervisord restarts it."""

    service: Service
    """The service."""
    how: str
    """How it ended, in supervisord's words, for example `exit status 1` or `terminated by SIGKILL`."""
    log_tail: str
    """The last lines of its log."""


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """A worker below the process of a service that was ready ended by itself; BentoML starts another one."""

    service: Service
    """The service."""
    how: str
    """How it ended, in one line."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A service that was ready is not restarted: it died too often, or only a change of its settings helps."""

    service: Service
    """The service."""
    reason: str
    """Why, in one line."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A service takes longer than usual to become ready."""

    service: Service
    """The service."""
    log_tail: str
    """The last lines of its log."""


Event = Ready | StartFailed | Retries | Died | WorkerEnded | GivenUp | Slow
_CANNOT_SERVE = re.compile(r"cannot serve: (?P<reason>.*); exits with status \d+ in ")


def logged(line: str, service: Service, *, was_ready: bool) -> Event | None:
    """The event that a line of a service's log reports; None if it reports none.

    Args:
        line: The line.
        service: The service.
        was_ready: Whether it has been ready.
    """
    text = text_of(line)
    _, ended, how = text.partition(f"{WORKER_ENDED}: ")
    if ended:
        return WorkerEnded(service, how) if was_ready else StartFailed(service, how)
    if not was_ready and (reason := reason_in(text)) != text:
        return StartFailed(service, reason)
    if "; the next attempt is in " in text:
        return Retries(service, text)
    return None


def reason_in(text: str) -> str:
    """The reason in a log line with which a service ends; other lines unchanged."""
    found = _CANNOT_SERVE.search(text)
    return found["reason"] if found else text
