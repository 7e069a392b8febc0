"""How torch uses the processor. Knows no torch until it is asked to."""

from __future__ import annotations

import os

from bentos.models.settings import ModelServingSettings


def prepare_cpu(settings: ModelServingSettings) -> None:
    """Makes torch use the processor as set; imports torch, before which it has to be called."""
    # OpenMP reads this when torch loads it; docs/decisions/0005 has the figures.
    os.environ.setdefault("GOMP_SPINCOUNT", str(settings.cpu_spin))
    from bentos.models.torch_device import use_cpu_threads

    use_cpu_threads(settings.cpu_threads)
