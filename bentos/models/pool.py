"""The models that a bento holds: by name, with a queue for each device, and threads beside the devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from bentos.models.settings import ModelServingSettings
from bentos.serving.batching import Batcher, BatchLimits, Outcome, Work
from bentos.serving.metrics import BatchMetrics
from torchless.contracts.errors import ErrorKind, TorchlessError

_LARGE_CHARACTERS = 200_000
"""Characters above which a request is tokenized where it holds up no small one: about a quarter of a second."""


class ModelInfo(Protocol):
    """What the pool needs to know of a model."""

    @property
    def id(self) -> str:
        """Name that requests use."""

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens of one batch."""


class Model(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Facts about it."""


class BatchKey(Protocol):
    """What items must have in common to share a batch; compared and hashed by value, written as the model's name."""

    @property
    def model(self) -> str:
        """Name of the model that they are for."""


M = TypeVar("M", bound=Model)
P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
L = TypeVar("L", bound=BatchKey)


class ModelPool(Generic[M, L, P, R]):
    """Several models, each on its device.

    Args:
        capability: Name of the capability in metrics, for instance `embedding`.
        models: The models, the default one first.
        run_batch: Runs one batch: a model, a key and the payloads of its items, to one result an item.
        settings: Batching and threads.
        inputs: Name of the request's field that holds the inputs, for messages.
    """

    def __init__(
        self,
        capability: str,
        models: Sequence[M],
        run_batch: Callable[[M, L, list[P]], Sequence[R]],
        settings: ModelServingSettings,
        inputs: str,
    ) -> None:
        self._settings = settings
        self._models = {model.info.id: model for model in models}
        self._default = models[0].info.id
        self._run_batch = run_batch
        self._metrics = BatchMetrics(capability)
        # A device runs one batch at a time, so what shares a device shares its queue.
        self._batchers: dict[str, Batcher[P, R]] = {
            device: Batcher(self._run, self._limits_of, settings.batching, self._metrics, inputs=inputs)
            for device in {model.info.device for model in models}
        }
        self._metrics.watch(*self._batchers.values())
        self._tokenizing = 0
        self._tokenizer_pool = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="tokenizer")
        # Of its own, so that small requests never stand behind large ones.
        self._large_input_pool = ThreadPoolExecutor(1, thread_name_prefix="tokenizer-large")

    def start(self) -> None:
        """Starts the devices' threads; requests come from the running event loop."""
        for batcher in self._batchers.values():
            batcher.start()

    async def stop(self) -> None:
        """Works off what waits and ends the threads."""
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers.values()))
        self._tokenizer_pool.shutdown()
        self._large_input_pool.shutdown()

    @property
    def models(self) -> list[M]:
        """The models, the default one first."""
        return list(self._models.values())

    def find(self, model_id: str) -> M:
        """The model of that id; the default one for an empty id.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        found = self._models.get(model_id or self._default)
        if found is None:
            raise TorchlessError(
                ErrorKind.NOT_FOUND, f"model: {model_id[:200]!r} is not served; the list of models names those that are"
            )
        return found

    def refuse_if_full(self, model: M) -> None:
        """Refuses before anything is done for a request whose length is not known yet.

        Raises:
            TorchlessError: OVERLOADED.
        """
        self._batchers[model.info.device].admission.refuse_if_full()

    async def run(self, model: M, work: Work[P], *, wait_for_room: bool = False) -> Outcome[R]:
        """Runs a request's items on the model's device; see `Batcher.submit`."""
        outcome = await self._batchers[model.info.device].submit(work, wait_for_room=wait_for_room)
        self._metrics.queued(model.info.id, outcome.queue_s)
        return outcome

    async def run_in_tokenizer_pool(self, function: Callable[[], T], characters: int = 0) -> T:
        """Runs `function` on a tokenizer thread.

        Args:
            function: What to run.
            characters: Size of what it works on, in characters or token ids. Large ones wait for each other only.

        Raises:
            TorchlessError: OVERLOADED, when as many wait for one as may wait for the device.
        """
        if self._tokenizing >= self._settings.batching.max_waiting_requests:
            raise TorchlessError(
                ErrorKind.OVERLOADED, "the service has too much to tokenize; try again shortly", retry_after_s=1.0
            )
        self._tokenizing += 1
        try:
            pool = self._tokenizer_pool if characters <= _LARGE_CHARACTERS else self._large_input_pool
            return await asyncio.get_running_loop().run_in_executor(pool, function)
        finally:
            self._tokenizing -= 1

    def _limits_of(self, key: L) -> BatchLimits:
        batching = self._settings.batching
        return BatchLimits(
            max_tokens=self._models[key.model].info.max_batch_tokens,
            max_items=batching.max_items,
            padding_share=batching.padding_share,
            free_padding_tokens=batching.free_padding_tokens,
        )

    def _run(self, key: L, payloads: list[P]) -> Sequence[R]:
        return self._run_batch(self._models[key.model], key, payloads)
