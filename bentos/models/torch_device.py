"""torch's devices: a configured GPU is required, and a lost one is reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchless.contracts.errors import ErrorKind, TorchlessError


def use_cpu_threads(count: int) -> None:
    """Sets the number of threads that compute a batch on the CPU; 0 keeps torch's default."""
    if count:
        torch.set_num_threads(count)


def require_device(device: str) -> None:
    """Checks that the device is available.

    Raises:
        TorchlessError: GPU_UNAVAILABLE.
    """
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise TorchlessError(
            ErrorKind.GPU_UNAVAILABLE,
            f"the service is configured for device {device}, but this machine has {count} CUDA devices",
        )


@contextmanager
def inference_mode() -> Iterator[None]:
    """Runs a batch without gradients, and reports a device failure.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, when the device failed.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.AcceleratorError as error:
        # A device that failed once stays unusable for this process.
        raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, "the device failed during inference") from error
