"""One request to the cache."""

from __future__ import annotations

from torchless.clients.cache.keys import Inputs
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbedOptions
from torchless.clients.translate import out_of_time


class Call:
    """One request.

    Args:
        inputs: Texts or token ids.
        options: How.
        context: For whom, and until when they wait.
    """

    __slots__ = ("context", "deadline", "inputs", "options")

    def __init__(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> None:
        self.inputs = inputs
        self.options = options
        self.context = context
        self.deadline = context.deadline or Deadline.NEVER

    def check_time(self) -> None:
        """Refuses to go on once the deadline has passed.

        Raises:
            TorchlessError: DEADLINE.
        """
        if self.deadline.expired:
            raise out_of_time("embedding")
