"""One request to the cache: what it holds, and how much of its time is left."""

from __future__ import annotations

import time
from dataclasses import replace

from torchless.clients.cache.keys import Inputs
from torchless.clients.call import CallContext
from torchless.clients.embedding import EmbedOptions
from torchless.clients.translate import out_of_time


class Call:
    """A request that began now.

    Args:
        inputs: Texts or token ids.
        options: How.
        context: For whom, and how long they wait.
    """

    __slots__ = ("_expires_at", "context", "inputs", "options")

    def __init__(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> None:
        self.inputs = inputs
        self.options = options
        self.context = context
        self._expires_at = None if context.deadline_s is None else time.monotonic() + context.deadline_s

    def remaining_s(self) -> float | None:
        """Seconds that are left, at least 0; None where the caller gave no deadline."""
        return None if self._expires_at is None else max(0.0, self._expires_at - time.monotonic())

    def has_time(self, seconds: float) -> bool:
        """Whether more than `seconds` are left."""
        remaining = self.remaining_s()
        return remaining is None or remaining > seconds

    def context_now(self) -> CallContext:
        """The context for a call that begins now.

        Raises:
            TorchlessError: DEADLINE, when no time is left.
        """
        remaining = self.remaining_s()
        if remaining is None:
            return self.context
        if not remaining:
            raise out_of_time("embedding")
        return replace(self.context, deadline_s=remaining)
