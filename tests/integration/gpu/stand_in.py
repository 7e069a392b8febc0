"""A fake of the NVIDIA driver's library, and the machine that it describes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import require_program

SOURCE = Path(__file__).with_name("nvml_stand_in.c")
NOT_SUPPORTED = -1
GPU_IS_LOST = 15
UNKNOWN = 999
TIMEOUT = 10
DRIVER_NOT_LOADED = 9


@dataclass
class GPU:
    """A GPU of the fake driver; -1 for what it does not report."""

    uuid: str
    total_mb: int = 10_000
    used_mb: int = 500
    celsius: int = 40
    milliwatts: int = 75_500
    percent: int = 12
    corrected: int = 0
    uncorrected: int = 0
    mig: int = NOT_SUPPORTED
    code: int = 0
    """An NVML error that it answers to everything."""
    name: str = "Stand-in GPU"

    def line(self) -> str:
        numbers = (self.total_mb, self.used_mb, self.celsius, self.milliwatts, self.percent)
        rest = (self.corrected, self.uncorrected, self.mig, self.code)
        return f"gpu {self.uuid} {' '.join(map(str, numbers + rest))} {self.name}"


@dataclass
class Machine:
    """What the stand-in answers; `tell` makes it so while programs run on."""

    folder: Path
    gpus: list[GPU] = field(default_factory=list)
    instances: list[tuple[str, str, int, int]] = field(default_factory=list)
    """MIG instances: uuid of the GPU, own uuid, memory in all and in use, in MiB."""
    processes: list[tuple[str, int, int]] = field(default_factory=list)
    """Uuid of the device, process id, memory in MiB."""
    init: int = 0
    """An NVML error that everything answers."""
    sleep_ms: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the stand-in."""
        return {"STAND_IN_NVML": str(self.folder / "machine"), "LD_LIBRARY_PATH": str(self.folder)}

    def tell(self) -> None:
        """Makes the stand-in answer what stands here now."""
        lines = [f"init {self.init}", f"sleep {self.sleep_ms}", *(gpu.line() for gpu in self.gpus)]
        lines += [f"mig {' '.join(map(str, each))}" for each in self.instances]
        lines += [f"process {' '.join(map(str, each))}" for each in self.processes]
        fresh = self.folder / "machine.new"
        fresh.write_text("\n".join(lines) + "\n")
        fresh.rename(self.folder / "machine")

    def install(self) -> Path:
        """Compiles the library into the folder; before that it is a machine without a driver."""
        library = self.folder / "libnvidia-ml.so.1"
        compiler = require_program("cc", "gcc")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
        return library
