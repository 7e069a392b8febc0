"""The line that each request has in the log, in the gateway and in every service."""

from __future__ import annotations

import logging
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings.logs import LogSettings
from torchless.telemetry.log_format import FIELDS

CANCELLED = 499
"""nginx's status for a client that disconnected."""
_BUCKETS = 2**32
_MODEL = re.compile(r"[\w./:@+-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class ServiceTimes(Protocol):
    """Times of a request inside a service, in milliseconds."""

    @property
    def queue_ms(self) -> float:
        """Waiting for the device."""

    @property
    def tokenization_ms(self) -> float:
        """Tokenizing the inputs."""

    @property
    def inference_ms(self) -> float:
        """Computing on the device."""


class RequestLog:
    """Writes the lines of requests; a request that is sampled away costs no line.

    Args:
        message: The message of each line.
    """

    def __init__(self, message: str) -> None:
        self._logger = logging.getLogger(f"torchless.{message}")
        self._message = message

    def level(
        self, settings: LogSettings, ids: Sequence[str], status: int, begun_s: float, *, is_routine: bool = False
    ) -> int:
        """The level of a request's line; 0: it gets none.

        Args:
            settings: Which requests get a line.
            ids: Its request id, or those of all requests that share a call.
            status: Its HTTP status, or the one that stands for its gRPC status.
            begun_s: Time until its response began, in seconds.
            is_routine: Whether it is a health check or the like, which is only logged at DEBUG.
        """
        level = logging.DEBUG if is_routine else _severity(status)
        if not self._logger.isEnabledFor(level):
            return 0
        if status >= 400 or begun_s * 1000 >= settings.slow_ms or _is_sampled(ids, settings.sample):
            return level
        return 0

    def write(self, level: int, fields: Mapping[str, Any], error: BaseException | None = None) -> None:
        """Writes one line.

        Args:
            level: What `level` gave.
            fields: Its fields, in their order; those without a value are left out, except for times of 0.0.
            error: A defect, whose type and stack are added.
        """
        about = None if error is None else (type(error), error, error.__traceback__)
        present = {name: value for name, value in fields.items() if value or type(value) is float}
        logger = self._logger
        # Not `logger.log`, which would find out the line of code first.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, self._message, (), about, extra={FIELDS: present}))


def model_name(name: str) -> str | None:
    """`name` if it can be the name of a model, else None: a request can hold any text in its place."""
    return name if _MODEL.fullmatch(name) else None


def trace_id(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent` (https://www.w3.org/TR/trace-context/); None if it is not one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else None


def add_outcome(fields: dict[str, Any], error: BaseException | None, times: ServiceTimes, total_s: float) -> None:
    """Adds the error and the times of a request to its fields; times inside a service only if something was computed.

    Args:
        fields: The fields of its line.
        error: Why it failed; None: it did not.
        times: Its times inside the service.
        total_s: Its whole duration, in seconds.
    """
    if error is not None:
        fields.update(error_fields(error))
    if times.inference_ms:
        fields["queue_ms"] = round(times.queue_ms, 3)
        fields["tokenization_ms"] = round(times.tokenization_ms, 3)
        fields["inference_ms"] = round(times.inference_ms, 3)
    fields["total_ms"] = round(total_s * 1000, 3)


def error_fields(error: BaseException | None) -> dict[str, str]:
    """The kind of an error, and for one that only time or an operator can mend, its message."""
    if not isinstance(error, TorchlessError):
        return {}
    if error.kind.policy.callers_fault or error.kind is ErrorKind.INTERNAL:
        return {"error": error.kind.value}  # the message may quote the request
    return {"error": error.kind.value, "reason": error.message}


def _severity(status: int) -> int:
    if status >= 500:
        return logging.ERROR
    return logging.WARNING if status >= 400 and status != CANCELLED else logging.INFO


def _is_sampled(ids: Sequence[str], share: float) -> bool:
    if share >= 1:
        return True
    if not ids:
        return random.random() < share  # noqa: S311  # no secret
    return any(zlib.crc32(each.encode()) < share * _BUCKETS for each in ids)
