"""Adaptive batching: waiting items are joined into batches for a device.

`scheduler` forms batches and knows neither threads nor time; `batcher` runs it on the device's thread; `admission`
refuses requests when too many tokens wait.
"""

from bentos.serving.batching.batcher import Batcher, Outcome
from bentos.serving.batching.scheduler import Batch, BatchLimits, Scheduler, Work
from bentos.serving.batching.settings import BatchingSettings

__all__ = ["Batcher", "BatchingSettings", "Outcome", "Batch", "BatchLimits", "Scheduler", "Work"]
