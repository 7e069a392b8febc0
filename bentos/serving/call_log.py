"""The line that each gRPC call has in the log; docs/logs.md describes its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from bentos.serving.calls import Context, metadata
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.types.v1.types_pb2 import Timings
from torchless.settings import LogSettings
from torchless.telemetry.request_log import (
    CANCELLED,
    RequestLog,
    add_outcome,
    model_name,
    trace_id,
)

_LONGEST = 128
_MOST_IDS = 1024
_POLLED = frozenset({"ListModels"})
"""Methods that gateways call all the time, also while the service still loads its models."""
_log = RequestLog("call")


@dataclass(slots=True)
class CallFacts:
    """What a call was about; for a stream, sums over its frames."""

    model: str = ""
    """The model's id: the requested one until there is an answer."""
    items: int = 0
    """Texts, token sequences or documents."""
    tokens: int = 0
    """Tokens that the model read."""
    refused: int = 0
    """Frames of a stream that were refused."""
    queue_ms: float = 0.0
    """Waiting for the device."""
    tokenization_ms: float = 0.0
    """Tokenizing the inputs."""
    inference_ms: float = 0.0
    """Computing on the device."""

    def add_times(self, times: Timings) -> None:
        """Adds the times of an answer."""
        self.queue_ms += times.queue_ms
        self.tokenization_ms += times.tokenization_ms
        self.inference_ms += times.inference_ms


Describe = Callable[[CallFacts, Any], None]
"""Adds what a request or a response message says to the facts about its call."""


def log_call(
    settings: LogSettings,
    context: Context,
    method: str,
    facts: CallFacts,
    error: BaseException | None,
    *,
    seconds: float,
    is_stream: bool,
) -> None:
    """Writes the line of a call that has ended, unless it is sampled away.

    Args:
        settings: Which calls get a line.
        context: The call.
        method: The method's name.
        facts: What it was about.
        error: How it failed; None: it did not.
        seconds: Its duration.
        is_stream: Whether it is a stream, which is never slow: it lasts as long as its caller wants.
    """
    given = metadata(context)
    ids = _ids(given.get("x-request-id", ""))
    name, http_status = _status(error)
    level = _log.level(settings, ids, http_status, 0.0 if is_stream else seconds, is_routine=_is_routine(method, error))
    if not level:
        return
    fields = {
        "request_id": ids[0] if len(ids) == 1 else None,
        "request_ids": ids if len(ids) > 1 else None,
        "trace_id": trace_id(given.get("traceparent", "")),
        "tenant": given.get("x-tenant-id", "")[:_LONGEST],
        "method": method,
        "model": model_name(facts.model),
        "items": facts.items,
        "tokens": facts.tokens,
        "refused": facts.refused,
        "status": name,
    }
    add_outcome(fields, error, facts, seconds)
    is_defect = isinstance(error, Exception) and not isinstance(error, TorchlessError)
    _log.write(level, fields, error if is_defect else None)


def _is_routine(method: str, error: BaseException | None) -> bool:
    is_loading = isinstance(error, TorchlessError) and error.kind is ErrorKind.LOADING
    return method in _POLLED and (error is None or is_loading)


def _ids(given: str) -> list[str]:
    """The request ids of a call; requests that share it are separated by commas."""
    ids = (each.strip() for each in given.split(",", _MOST_IDS)[:_MOST_IDS])
    return [each for each in ids if 0 < len(each) <= _LONGEST and each.isascii() and each.isprintable()]


def _status(error: BaseException | None) -> tuple[str, int]:
    """The gRPC status of a call, and the HTTP status that stands for it."""
    if error is None:
        return grpc.StatusCode.OK.name, 200
    if isinstance(error, Exception):
        kind = error.kind if isinstance(error, TorchlessError) else ErrorKind.INTERNAL
        return kind.policy.grpc_status.name, kind.policy.http_status
    # Only the cancellation of a call whose client disconnected is no Exception.
    return grpc.StatusCode.CANCELLED.name, CANCELLED
