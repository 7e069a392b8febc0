"""Configures how torch uses the CPU. Importing this module does not import torch."""

from __future__ import annotations

import os

from bentos.models.settings import ModelServingSettings


def prepare_cpu(settings: ModelServingSettings) -> None:
    """Applies the CPU settings. Imports torch, and must be called before anything else does."""
    # OpenMP reads this when torch loads it; docs/decisions/0005 has the figures.
    os.environ.setdefault("GOMP_SPINCOUNT", str(settings.cpu_spin))
    from bentos.models.torch_device import use_cpu_threads

    use_cpu_threads(settings.cpu_threads)
