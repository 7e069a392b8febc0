"""The models of a bento: found by id, with one queue per device and threads for tokenization."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from bentos.models.settings import ModelServingSettings
from bentos.serving.batching import Batcher, BatchLimits, Outcome, Work
from bentos.serving.metrics import BatchMetrics
from torchless.contracts.errors import ErrorKind, ResourceType, TorchlessError, not_found

_LARGE_CHARACTERS = 200_000
"""Size above which a request is tokenized on the thread for large inputs: about a quarter of a second of work."""


class ModelInfo(Protocol):
    """The facts about a model that the pool needs."""

    @property
    def id(self) -> str:
        """Name that requests use."""

    @property
    def device(self) -> str:
        """Device that it runs on."""

    @property
    def max_batch_tokens(self) -> int:
        """Token budget of one batch, padding included."""


class Model(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""


class BatchKey(Protocol):
    """Items share a batch when their keys are equal. `str(key)` is the model's id, the label of metrics."""

    @property
    def model(self) -> str:
        """Id of the model."""


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
        run_batch: Runs one batch: takes a model, a key and the payloads of its items, returns one result per item.
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
        # A device runs one batch at a time, so models on the same device share its queue.
        self._batchers: dict[str, Batcher[P, R]] = {
            device: Batcher(self._run, self._limits_of, settings.batching, self._metrics, inputs=inputs)
            for device in {model.info.device for model in models}
        }
        self._metrics.watch(*self._batchers.values())
        self._tokenizing = 0
        self._tokenizer_pool = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="tokenizer")
        # A separate thread, so that small requests never wait behind large ones.
        self._large_input_pool = ThreadPoolExecutor(1, thread_name_prefix="tokenizer-large")

    def start(self) -> None:
        """Starts the devices' threads; requests come from the running event loop."""
        for batcher in self._batchers.values():
            batcher.start()

    async def stop(self) -> None:
        """Finishes the waiting requests and ends the threads."""
        await asyncio.gather(*(batcher.stop() for batcher in self._batchers.values()))
        self._tokenizer_pool.shutdown()
        self._large_input_pool.shutdown()

    @property
    def models(self) -> list[M]:
        """The models, the default one first."""
        return list(self._models.values())

    def find(self, model_id: str) -> M:
        """The model with that id; the default model for an empty id.

        Raises:
            TorchlessError: NOT_FOUND.
        """
        found = self._models.get(model_id or self._default)
        if found is None:
            served = ", ".join(self._models)
            raise not_found(
                ResourceType.MODEL,
                model_id,
                f"model: {model_id[:200]!r} is not served; the served models are: {served}",
            )
        return found

    def refuse_if_full(self, model: M) -> None:
        """Refuses a request whose length is not known yet, before any work is done for it.

        Raises:
            TorchlessError: OVERLOADED.
        """
        self._batchers[model.info.device].admission.refuse_if_full()

    async def run(self, model: M, work: Work[P], *, wait_for_room: bool = False) -> Outcome[R]:
        """Runs a request's items on the model's device; see `Batcher.submit`."""
        outcome = await self._batchers[model.info.device].submit(work, wait_for_room=wait_for_room)
        self._metrics.queued(model.info.id, outcome.queue_s)
        return outcome

    def count_truncated(self, model: M, inputs: int) -> None:
        """Counts inputs of which the model read only a part."""
        if inputs:
            self._metrics.truncated(model.info.id, inputs)

    async def run_in_tokenizer_pool(self, function: Callable[[], T], characters: int = 0) -> T:
        """Runs `function` on a tokenizer thread.

        Args:
            function: What to run.
            characters: Size of its input, in characters or token ids. Large inputs share a separate thread.

        Raises:
            TorchlessError: OVERLOADED, when `max_waiting_requests` functions wait or run.
        """
        if self._tokenizing >= self._settings.batching.max_waiting_requests:
            raise TorchlessError(
                ErrorKind.OVERLOADED, "too many requests wait for tokenization; retry shortly", retry_after_s=1.0
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
