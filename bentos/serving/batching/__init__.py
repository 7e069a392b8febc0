"""Adaptive batching: what waits for a device is put together into batches over it.

`scheduler` decides and knows neither threads nor time; `batcher` runs it beside an event loop; `admission` says no.
"""

from bentos.serving.batching.batcher import Batcher, Outcome
from bentos.serving.batching.scheduler import Batch, BatchLimits, Scheduler, Work
from bentos.serving.batching.settings import BatchingSettings

__all__ = ["Batcher", "BatchingSettings", "Outcome", "Batch", "BatchLimits", "Scheduler", "Work"]
