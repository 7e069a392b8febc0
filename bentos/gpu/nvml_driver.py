"""The NVIDIA driver through NVML; the only file that imports the binding.

What the functions return and when they fail: https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pynvml  # type: ignore[import-untyped]  # ships none

from bentos.gpu.driver import DeviceReading, DriverUnavailableError, MemoryReading, ProcessReading, Reading

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MIB = 1024 * 1024
_NO_DRIVER = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "the NVIDIA driver is not installed: its NVML library was not found",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    pynvml.NVML_ERROR_UNINITIALIZED: "the NVIDIA driver ended the session",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver and its NVML library have different versions; "
    "the machine must be restarted",
}
"""Errors that mean that the whole driver is unavailable."""
_DEVICE_GONE = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "it fell off the bus",
    pynvml.NVML_ERROR_RESET_REQUIRED: "it must be reset",
}
"""Errors of any function that mean that the device is lost."""
_HANDLE_GONE = {
    **_DEVICE_GONE,
    pynvml.NVML_ERROR_UNKNOWN: "the driver fails on it for an unknown reason",
    pynvml.NVML_ERROR_NOT_FOUND: "the driver no longer finds it",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "the driver no longer finds it",
    pynvml.NVML_ERROR_INVALID_ARGUMENT: "the driver no longer knows it",
}
"""Errors that mean the same, but only of functions that every device supports."""


class _DeviceGoneError(Exception):
    """A device no longer responds."""


class _DeviceFaultError(Exception):
    """A device is present but cannot be read now."""


class NvmlDriver:
    """A `GPUDriver` on NVML. Figures that a device does not support are None."""

    def __init__(self) -> None:
        self._is_open = False
        self._known: dict[int, list[DeviceReading]] = {}
        """The last reading at each index."""

    def open(self) -> None:
        """Loads the library, which is searched for at each call, and starts a session."""
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise DriverUnavailableError(_why_no_driver(error)) from error
        self._is_open = True
        self._known.clear()  # a new session may number the devices differently

    def close(self) -> None:
        """Ends the session, unless the driver has ended it."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            logger.info("the driver's session had ended already: %s", error)

    def read(self) -> Reading:
        """Reads all figures; takes at most tens of milliseconds per device, unless the driver hangs."""
        try:
            return self._read()
        except pynvml.NVMLError as error:
            raise DriverUnavailableError(_why_no_driver(error)) from error

    def _read(self) -> Reading:
        devices: list[DeviceReading] = []
        gone: dict[int, str] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                self._known[index] = list(_gpu_and_instances(index))
            except _DeviceGoneError as error:
                gone[index] = str(error)
                continue
            except _DeviceFaultError as error:
                self._known[index] = [_unread(each, str(error)) for each in self._known.get(index, [])]
            devices.extend(self._known[index])
        cuda = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return Reading(
            driver_version=_optional(pynvml.nvmlSystemGetDriverVersion) or "",
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
            nvml_version=_optional(pynvml.nvmlSystemGetNVMLVersion) or "",
            devices=tuple(devices),
            gone=gone,
        )


def _gpu_and_instances(index: int) -> Iterator[DeviceReading]:
    handle = _required(pynvml.nvmlDeviceGetHandleByIndex, index)
    mig = _optional(pynvml.nvmlDeviceGetMigMode, handle)
    pci = _optional(pynvml.nvmlDeviceGetPciInfo, handle)
    gpu = _device(
        handle,
        index,
        mig_enabled=None if mig is None else mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        pci_bus_id=None if pci is None else _text(pci.busId),
    )
    yield gpu
    if not gpu.mig_enabled:
        return
    for mig_index in range(_optional(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = _optional(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, mig_index)
        if instance is None:
            continue  # the slot is empty
        try:
            yield _device(instance, index, parent_uuid=gpu.uuid, mig_index=mig_index)
        except _DeviceGoneError:
            continue  # removed in the meantime


def _device(handle: Any, index: int, **known: Any) -> DeviceReading:
    memory, fault = _memory(handle)
    use = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    power, limit = (
        _optional(f, handle) for f in (pynvml.nvmlDeviceGetPowerUsage, pynvml.nvmlDeviceGetEnforcedPowerLimit)
    )
    return DeviceReading(
        uuid=_text(_required(pynvml.nvmlDeviceGetUUID, handle)),
        index=index,
        name=_text(_optional(pynvml.nvmlDeviceGetName, handle) or ""),
        memory=memory,
        fault=fault,
        utilization_percent=None if use is None else use.gpu,
        memory_utilization_percent=None if use is None else use.memory,
        temperature_c=_temperature(handle),
        power_w=None if power is None else power / 1000,
        power_limit_w=None if limit is None else limit / 1000,
        ecc_corrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        ecc_uncorrected=_ecc(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        processes=_processes(handle),
        **known,
    )


def _unread(known: DeviceReading, fault: str) -> DeviceReading:
    """A device that cannot be read now: only what does not change."""
    return DeviceReading(
        known.uuid,
        known.index,
        known.name,
        None,
        fault,
        pci_bus_id=known.pci_bus_id,
        mig_enabled=known.mig_enabled,
        parent_uuid=known.parent_uuid,
        mig_index=known.mig_index,
    )


def _memory(handle: Any) -> tuple[MemoryReading | None, str]:
    """The memory, or why it cannot be read now; neither if the device does not report it."""
    try:
        # Version 1 of this call: its `used` includes the driver's own memory, so that used and free add up to total.
        info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:
        return None, ""
    except pynvml.NVMLError as error:
        _raise_if_gone(error, _HANDLE_GONE)
        return None, f"its memory cannot be read: {error}"
    return MemoryReading(info.total // _MIB, -(-info.used // _MIB), info.free // _MIB), ""


def _temperature(handle: Any) -> int | None:
    sensor = pynvml.NVML_TEMPERATURE_GPU
    found = _optional(pynvml.nvmlDeviceGetTemperatureV, handle, sensor)
    # Drivers before 2025 have only the older function.
    return _optional(pynvml.nvmlDeviceGetTemperature, handle, sensor) if found is None else found


def _ecc(handle: Any, kind: int) -> int | None:
    return _optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)


def _processes(handle: Any) -> tuple[ProcessReading, ...]:
    try:
        found = _optional(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    except pynvml.NVMLLibraryMismatchError:  # the driver is older than this binding's version of the call
        return ()
    return tuple(
        ProcessReading(each.pid, None if each.usedGpuMemory is None else each.usedGpuMemory // _MIB) for each in found
    )


def _required(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function that every device supports; if it fails, the device is lost or cannot be read."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        _raise_if_gone(error, _HANDLE_GONE)
        raise _DeviceFaultError(f"the driver fails on it: {error}") from error


def _optional(function: Callable[..., T], *arguments: Any) -> T | None:
    """Calls a function that not every device supports; None if it fails."""
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        _raise_if_gone(error, _DEVICE_GONE)
        return None


def _raise_if_gone(error: pynvml.NVMLError, gone: dict[int, str]) -> None:
    if error.value in _NO_DRIVER:
        raise error
    if error.value in gone:
        raise _DeviceGoneError(gone[error.value]) from error


def _why_no_driver(error: pynvml.NVMLError) -> str:
    return _NO_DRIVER.get(error.value, f"the NVIDIA driver does not work: {error}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
