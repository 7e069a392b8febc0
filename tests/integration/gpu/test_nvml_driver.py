"""The driver with the real NVML binding and the fake library, in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from bentos.gpu.driver import DriverUnavailableError, MemoryReading, ProcessReading
from bentos.gpu.nvml_driver import NvmlDriver
from tests.integration.gpu.stand_in import DRIVER_NOT_LOADED, GPU, GPU_IS_LOST, NOT_SUPPORTED, TIMEOUT, UNKNOWN, Machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Two GPUs behind the stand-in; the binding has loaded nothing yet."""
    machine = Machine(tmp_path, [GPU("GPU-a"), GPU("GPU-b", total_mb=20_000)])
    machine.tell()
    monkeypatch.setenv("STAND_IN_NVML", machine.environment["STAND_IN_NVML"])
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    # As the dynamic loader would with LD_LIBRARY_PATH, which a running process does not read again.
    monkeypatch.setattr(pynvml, "CDLL", lambda name: ctypes.CDLL(str(tmp_path / name)))
    return machine


@pytest.fixture
def driver(machine: Machine) -> Iterator[NvmlDriver]:
    machine.install()
    driver = NvmlDriver()
    driver.open()
    yield driver
    driver.close()


def test_reading_has_every_figure_of_a_device(machine: Machine, driver: NvmlDriver) -> None:
    machine.processes = [("GPU-a", 77, 300), ("GPU-a", 78, NOT_SUPPORTED), ("GPU-b", 79, 5)]
    machine.gpus[0].uncorrected = 3
    machine.tell()
    reading = driver.read()
    assert (reading.driver_version, reading.cuda_version, reading.nvml_version) == ("570.86.15", "12.8", "12.570.86.15")
    first, second = reading.devices
    assert (first.uuid, first.index, first.name, first.pci_bus_id) == (
        "GPU-a",
        0,
        "Stand-in GPU",
        "00000000:01:00.0",
    )
    assert first.memory == MemoryReading(10_000, 500, 9_500)
    assert (first.utilization_percent, first.memory_utilization_percent) == (12, 6)
    assert (first.temperature_c, first.power_w, first.power_limit_w) == (40, 75.5, 700.0)
    assert (first.ecc_corrected, first.ecc_uncorrected, first.mig_enabled) == (0, 3, None)
    assert first.processes == (ProcessReading(77, 300), ProcessReading(78, None))
    assert (second.uuid, second.processes) == ("GPU-b", (ProcessReading(79, 5),))


def test_unsupported_figure_is_absent_and_not_zero(machine: Machine, driver: NvmlDriver) -> None:
    machine.gpus = [GPU("GPU-a", -1, -1, -1, -1, -1, -1, -1, -1)]
    machine.tell()
    driver.close()
    driver.open()
    (device,) = driver.read().devices
    assert (device.memory, device.fault) == (None, "")
    told = (device.utilization_percent, device.temperature_c, device.power_w, device.power_limit_w)
    assert {*told, device.ecc_corrected, device.ecc_uncorrected, device.mig_enabled} == {None}


def test_a_gpu_in_mig_mode_is_listed_before_its_instances(machine: Machine, driver: NvmlDriver) -> None:
    machine.gpus[0].mig = 1
    machine.gpus[1].mig = 0
    machine.instances = [("GPU-a", "MIG-1", 4_000, 10), ("GPU-a", "MIG-2", 2_000, 20)]
    machine.processes = [("MIG-2", 5, 7)]
    machine.tell()
    devices = driver.read().devices
    assert [(d.uuid, d.index, d.mig_index, d.parent_uuid, d.mig_enabled) for d in devices] == [
        ("GPU-a", 0, None, "", True),
        ("MIG-1", 0, 0, "GPU-a", None),
        ("MIG-2", 0, 1, "GPU-a", None),
        ("GPU-b", 1, None, "", False),
    ]
    assert devices[2].memory == MemoryReading(2_000, 20, 1_980)
    assert devices[2].processes == (ProcessReading(5, 7),)


@pytest.mark.parametrize("code", [GPU_IS_LOST, UNKNOWN])
def test_lost_device_is_reported_by_index_and_others_are_read(machine: Machine, driver: NvmlDriver, code: int) -> None:
    machine.gpus[0].code = code
    machine.tell()
    reading = driver.read()
    assert [device.uuid for device in reading.devices] == ["GPU-b"]
    assert list(reading.gone) == [0]
    assert reading.gone[0]


def test_device_that_cannot_be_read_is_listed_as_faulty(machine: Machine, driver: NvmlDriver) -> None:
    driver.read()
    machine.gpus[0].code = TIMEOUT
    machine.tell()
    first, _ = driver.read().devices
    assert (first.uuid, first.memory) == ("GPU-a", None)
    assert "Timeout" in first.fault
    machine.gpus[0].code = 0
    machine.tell()
    assert driver.read().devices[0].fault == ""


def test_new_session_finds_a_returned_device(machine: Machine, driver: NvmlDriver) -> None:
    gone = machine.gpus.pop(0)
    machine.tell()
    assert list(driver.read().gone) == [0]
    machine.gpus.insert(0, gone)
    machine.tell()
    assert list(driver.read().gone) == [0]
    driver.close()
    driver.open()
    assert [device.uuid for device in driver.read().devices] == ["GPU-a", "GPU-b"]


def test_driver_is_unavailable_until_its_library_is_installed(machine: Machine) -> None:
    driver = NvmlDriver()
    with pytest.raises(DriverUnavailableError, match="not installed"):
        driver.open()
    driver.close()
    machine.install()
    driver.open()
    assert len(driver.read().devices) == 2
    driver.close()


def test_driver_that_is_not_loaded_or_stops_is_unavailable(machine: Machine) -> None:
    machine.install()
    machine.init = DRIVER_NOT_LOADED
    machine.tell()
    driver = NvmlDriver()
    with pytest.raises(DriverUnavailableError, match="not loaded"):
        driver.open()
    machine.init = 0
    machine.tell()
    driver.open()
    machine.init = UNKNOWN
    machine.tell()
    with pytest.raises(DriverUnavailableError, match="does not work"):
        driver.read()
    driver.close()


@pytest.mark.gpu
def test_real_driver_lists_its_devices() -> None:
    driver = NvmlDriver()
    try:
        driver.open()
    except DriverUnavailableError as error:
        pytest.skip(str(error))
    try:
        reading = driver.read()
    finally:
        driver.close()
    assert reading.driver_version
    assert reading.devices
    for device in reading.devices:
        assert device.uuid.startswith(("GPU-", "MIG-"))
        if device.memory is not None:
            assert device.memory.total_mb > 0
            assert 0 <= device.memory.free_mb <= device.memory.total_mb
