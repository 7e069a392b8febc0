"""Settings of the batcher."""

from __future__ import annotations

from pydantic import Field

from torchless.settings import SettingsGroup


class BatchingSettings(SettingsGroup):
    """How requests share the device, and when they are refused."""

    max_items: int = Field(default=64, ge=1, le=65_536)
    """Most items in one batch."""
    padding_share: float = Field(default=0.25, ge=0, lt=1)
    """Largest share of padding in what an item adds to a batch. 0.25 suits a CPU, where padding costs as much as text;
    a GPU that is far from full takes 0.9."""
    free_padding_tokens: int = Field(default=128, ge=0)
    """Padding of a whole batch that is always allowed, in tokens: about what starting another batch costs."""
    max_batch_ms: float = Field(default=250.0, ge=0)
    """Time that one batch should take at most, in milliseconds, by the measured speed of the device; 0: no bound. A
    small request may stand that long behind a bulk one. A batch of a single input may take longer."""
    window_ms: float = Field(default=0.0, ge=0, le=1000)
    """Time that an idle device waits for company after the first item arrives, in milliseconds; 0: none."""
    max_waiting_tokens: int = Field(default=1_048_576, ge=2)
    """Tokens that may wait for the device. A request past that is refused with OVERLOADED, as is one that would expire
    before its turn; a bulk stream waits while half of it is taken."""
    max_waiting_requests: int = Field(default=1024, ge=1)
    """Requests that may wait for the device; past that they are refused likewise."""
