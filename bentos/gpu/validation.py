"""Validates requests against the service's limits. Pure."""

from __future__ import annotations

from bentos.gpu.leases import LeaseRequest
from bentos.gpu.settings import GPUSettings, WatchSettings
from torchless.contracts.errors import invalid_input

_MAX_TEXT = 256
_MAX_UUIDS = 256


def check_request(request: LeaseRequest, settings: GPUSettings) -> None:
    """Checks that the fields of a lease request are in range.

    Raises:
        TorchlessError: INVALID_INPUT, naming the field and its range.
    """
    if request.memory_mb < 1:
        raise invalid_input("memory_mb", f"must be at least 1 MiB, not {request.memory_mb}")
    if request.device_count < 1:
        raise invalid_input("device_count", f"must be at least 1, not {request.device_count}")
    if not request.holder.strip():
        raise invalid_input("holder", "must name the holder of the lease; it is empty")
    for field in ("holder", "tenant", "idempotency_key"):
        length = len(getattr(request, field))
        if length > _MAX_TEXT:
            raise invalid_input(field, f"must have at most {_MAX_TEXT} characters, not {length}")
    if request.pid is not None and request.pid < 1:
        raise invalid_input("pid", f"must be at least 1, not {request.pid}")
    if len(request.device_uuids) > _MAX_UUIDS or any(len(uuid) > _MAX_TEXT for uuid in request.device_uuids):
        raise invalid_input("device_uuids", f"must be at most {_MAX_UUIDS} uuids of at most {_MAX_TEXT} characters")
    if request.device_uuids and request.device_count > len(request.device_uuids):
        raise invalid_input("device_count", f"is {request.device_count}, but device_uuids names fewer devices")
    check_ttl(request.ttl_s, settings)


def check_ttl(ttl_s: float, settings: GPUSettings) -> None:
    """Checks that a lease's time to live is in range.

    Raises:
        TorchlessError: INVALID_INPUT.
    """
    if not settings.min_ttl_s <= ttl_s <= settings.max_ttl_s:  # so NaN is refused
        raise invalid_input("ttl_s", f"must be {settings.min_ttl_s:g} to {settings.max_ttl_s:g} s, not {ttl_s:g}")


def check_interval(interval_s: float, settings: WatchSettings) -> None:
    """Checks that a watch interval is in range.

    Raises:
        TorchlessError: INVALID_INPUT.
    """
    if not settings.min_interval_s <= interval_s <= settings.max_interval_s:
        raise invalid_input(
            "interval_s", f"must be {settings.min_interval_s:g} to {settings.max_interval_s:g} s, not {interval_s:g}"
        )
