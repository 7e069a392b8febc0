"""The service behind the cache: what it serves, and whether it is there, are seen from how its calls go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from torchless.clients.cache.keys import Inputs, Served
from torchless.clients.cache.revisions import Revisions
from torchless.clients.cache.service_state import ServiceState
from torchless.clients.call import CallContext
from torchless.clients.embedding import Embeddings, EmbedOptions
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import ErrorKind, TorchlessError

_ASK_S = 5.0
_ASK_AGAIN_S = 2.0


class EmbeddingService(Protocol):
    """What computes embeddings: `EmbeddingClient`, or what stands before it."""

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """Vectors of `inputs`, in their order; raises `TorchlessError`."""
        ...

    async def list_models(self, context: CallContext) -> list[pb.Model]:
        """The models served, the default one first; raises `TorchlessError`."""
        ...


class WatchedService:
    """Calls the service and remembers what that says about it.

    Args:
        service: What computes.
        revisions: Learns what is served.
        is_down: Says whether the service is down; None: the last calls decide.
    """

    def __init__(self, service: EmbeddingService, revisions: Revisions, is_down: Callable[[], bool] | None) -> None:
        self._service = service
        self._revisions = revisions
        self._state = ServiceState(is_down)

    @property
    def down(self) -> bool:
        """Whether the service is known to be down."""
        return self._state.down

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """What the service answers; raises what it raises."""
        asked_at = time.monotonic()
        try:
            answer = await self._service.embed(inputs, options, context)
        except TorchlessError as error:
            self._state.failed(error)
            raise
        self._state.embedded()
        self._revisions.answered(options.model, Served(answer.model, answer.revision), asked_at)
        return answer

    async def ask(self, deadline_s: float = _ASK_S) -> bool:
        """Asks which models are served.

        Returns:
            Whether the service said it.
        """
        try:
            models = await self._service.list_models(CallContext(deadline_s=deadline_s))
        except TorchlessError as error:
            self._state.failed(error)
            return False
        self._state.listed()
        self._revisions.listed([Served(each.id, each.revision) for each in models])
        return True

    async def watch(self, interval_s: float, answered: bool) -> None:
        """Asks again and again, sooner where the last time brought no answer; never returns."""
        while True:
            await asyncio.sleep(interval_s if answered else min(interval_s, _ASK_AGAIN_S))
            answered = await self.ask()


def refuse_odd(answer: Embeddings, inputs: Inputs) -> None:
    """Lets an answer pass that has one vector and one count for each input.

    Raises:
        TorchlessError: INTERNAL, for another.
    """
    if not len(inputs) == len(answer.vectors) == len(answer.token_counts):
        raise TorchlessError(ErrorKind.INTERNAL, "the service answered another number of vectors than of inputs")
