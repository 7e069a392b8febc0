"""Loads, starts and stops the models of a bento, with a lease on the GPU if one is configured."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from bentos.models.device_lease import DeviceLease
from bentos.models.load_failure import load_failure, warm_up_failure
from bentos.models.settings import ModelServingSettings, WeightsSettings

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class Engine(Protocol):
    """A bento's use case, without a transport."""

    async def start(self) -> None:
        """Starts threads and warms up."""

    async def stop(self) -> None:
        """Finishes the waiting requests and ends the threads."""


class ModelInfo(Protocol):
    """The facts about a model that are logged."""

    @property
    def summary(self) -> str:
        """The facts that an operator wants to see, in one line."""


class Model(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""


E = TypeVar("E", bound=Engine)
S = TypeVar("S", bound=WeightsSettings)
M = TypeVar("M", bound=Model)


class ModelCapability(Generic[S, M, E]):
    """Base of the servicers: starts and stops the engine.

    Args:
        name: Holder of the lease, unless the settings name one.
        settings: The settings of the lease.
        models: Settings of the models, the default one first.
        load: Loads one model; called on a thread, since it takes seconds.
        make: Creates the engine from the loaded models, in the order of their settings.
    """

    def __init__(
        self,
        name: str,
        settings: ModelServingSettings,
        *,
        models: Sequence[S],
        load: Callable[[S], M],
        make: Callable[[list[M]], E],
    ) -> None:
        self._lease = DeviceLease(settings.lease, name)
        self._models = models
        self._load = load
        self._make = make
        self._engine: E | None = None

    async def start(self, report: Callable[[str], None] = lambda message: None) -> None:
        """Loads the models and warms them up. Waits for what time can mend: the hub, or memory of a GPU.

        Args:
            report: Takes what the start waits for.

        Raises:
            TorchlessError: MODEL_UNAVAILABLE, GPU_UNAVAILABLE, or the reason why there is no lease.
        """
        # Before the first model, and with it torch, is loaded: CUDA fixes its visible devices then.
        await self._lease.take(report)
        try:
            await self._start_engine(report)
        except BaseException:
            await self._lease.release()
            raise

    async def _start_engine(self, report: Callable[[str], None]) -> None:
        models = [await self._load_model(own, report) for own in self._models]
        engine = self._make(models)
        try:
            await engine.start()
        except BaseException as error:
            await engine.stop()
            if isinstance(error, Exception):
                raise warm_up_failure(error) from error
            raise
        self._engine = engine

    async def _load_model(self, own: S, report: Callable[[str], None]) -> M:
        pause_s = _FIRST_PAUSE_S
        while True:
            report(f"the service is loading the model {own.id}")
            began = time.monotonic()
            try:
                model = await asyncio.to_thread(self._load, own)
            except Exception as error:
                failure = load_failure(error, own)
                if not failure.kind.policy.transient:
                    raise failure from error
            else:
                logger.info("%s, loaded in %.1f s", model.info.summary, time.monotonic() - began)
                return model
            logger.warning("%s; the next attempt is in %g s", failure.message, pause_s)
            report(failure.message)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stop(self) -> None:
        """Ends the engine's threads, then releases the lease."""
        if self._engine is not None:
            await self._engine.stop()
        await self._lease.release()

    @property
    def ready(self) -> E:
        """The engine. Calls reach the servicer only after `start` has returned."""
        if self._engine is None:
            raise RuntimeError("a call arrived before start() returned")
        return self._engine
