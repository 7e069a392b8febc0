"""The service behind the cache: what it serves, and whether it is there, are seen from how its calls go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from torchless.clients.cache.keys import Inputs, Served
from torchless.clients.cache.revisions import Revisions
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingModelInfo, Embeddings, EmbedOptions
from torchless.contracts.errors import ErrorKind, TorchlessError

_ASK_S = 5.0
_ASK_AGAIN_S = 2.0
_GONE = frozenset({ErrorKind.UNREACHABLE, ErrorKind.CIRCUIT_OPEN})
_DOWN = _GONE | {ErrorKind.GPU_UNAVAILABLE}


class EmbeddingService(Protocol):
    """What computes embeddings: `EmbeddingClient`, or what stands before it."""

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """Vectors of `inputs`, in their order; raises `TorchlessError`."""
        ...

    async def list_models(self, context: CallContext) -> list[EmbeddingModelInfo]:
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
        self._is_down = is_down
        self._failure: ErrorKind | None = None

    @property
    def down(self) -> bool:
        """Whether the last call found no service, or one without its device."""
        return self._failure is not None if self._is_down is None else self._is_down()

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """What the service answers; raises what it raises."""
        asked_at = time.monotonic()
        try:
            answer = await self._service.embed(inputs, options, context)
        except TorchlessError as error:
            self._note_failure(error)
            raise
        self._failure = None
        self._revisions.answered(options.model, Served(answer.model, answer.revision), asked_at)
        return answer

    async def ask(self, timeout_s: float = _ASK_S) -> bool:
        """Asks which models are served.

        Returns:
            Whether the service said it.
        """
        try:
            models = await self._service.list_models(CallContext(deadline=Deadline.after(timeout_s)))
        except TorchlessError as error:
            self._note_failure(error)
            return False
        if self._failure in _GONE:  # a service without its device lists its models, too
            self._failure = None
        self._revisions.listed([Served(each.id, each.revision) for each in models])
        return True

    async def watch(self, interval_s: float, answered: bool) -> None:
        """Asks again and again, sooner where the last time brought no answer; never returns."""
        while True:
            await asyncio.sleep(interval_s if answered else min(interval_s, _ASK_AGAIN_S))
            answered = await self.ask()

    def _note_failure(self, error: TorchlessError) -> None:
        if error.kind in _DOWN:
            self._failure = error.kind


def refuse_odd(answer: Embeddings, inputs: Inputs) -> None:
    """Lets an answer pass that has one vector and one count for each input.

    Raises:
        TorchlessError: INTERNAL, for another.
    """
    if not len(inputs) == len(answer.vectors) == len(answer.token_counts):
        raise TorchlessError(ErrorKind.INTERNAL, "the service answered another number of vectors than of inputs")
