"""Settings of the batcher."""

from __future__ import annotations

from pydantic import Field

from torchless.settings import SettingsGroup


class BatchingSettings(SettingsGroup):
    """Batching and admission."""

    max_items: int = Field(default=64, ge=1, le=65_536)
    """Most items in one batch."""
    padding_share: float = Field(default=0.25, ge=0, lt=1)
    """Largest share of padding in what an item adds to a batch. 0.25 suits a CPU, where padding costs as much as text;
    a GPU that is far from full takes 0.9."""
    free_padding_tokens: int = Field(default=128, ge=0)
    """Padding of a whole batch that is always allowed, in tokens: about the cost of starting another batch."""
    max_batch_ms: float = Field(default=250.0, ge=0)
    """Longest time of one batch, in milliseconds, by the measured speed of the device; 0: no bound. A small request
    waits at most that long behind a bulk one. A batch of a single input may take longer."""
    window_ms: float = Field(default=0.0, ge=0, le=1000)
    """Time that an idle device waits for more items after the first one arrives, in milliseconds; 0: none."""
    max_waiting_tokens: int = Field(default=1_048_576, ge=2)
    """Most tokens that may wait for the device. A request above the limit is refused with OVERLOADED, and so is a
    request that would expire before its turn. A bulk stream waits until it fits into half of the limit."""
    max_waiting_requests: int = Field(default=1024, ge=1)
    """Most requests that may wait for the device; a request above the limit is refused with OVERLOADED."""
