"""torch's devices: the rule that a configured GPU is a GPU, and what a lost one means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchless.contracts.errors import ErrorKind, TorchlessError


def use_cpu_threads(count: int) -> None:
    """Threads of a batch on the CPU; 0 leaves torch's own choice."""
    if count:
        torch.set_num_threads(count)


def require_device(device: str) -> None:
    """Does nothing when the device is there.

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
            f"the service is set to device {device} and this machine has {count} CUDA devices",
        )


@contextmanager
def inference_mode() -> Iterator[None]:
    """Around a batch: no gradients, and a failing device is ours to report.

    Raises:
        TorchlessError: GPU_UNAVAILABLE, when the device failed.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.AcceleratorError as error:
        # A device that failed once answers nothing more to this process.
        raise TorchlessError(ErrorKind.GPU_UNAVAILABLE, "the device failed while it was in use") from error
