"""Loads, starts and stops the models of a bento, with a lease on the GPU if one is configured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from bentos.models.device_lease import DeviceLease
from bentos.models.settings import ModelServingSettings, WeightsSettings
from torchless.contracts.errors import TorchlessError

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """A bento's use case, without a transport."""

    async def start(self) -> None:
        """Starts threads and warms up."""

    async def stop(self) -> None:
        """Finishes the waiting requests and ends the threads."""


E = TypeVar("E", bound=Engine)
S = TypeVar("S", bound=WeightsSettings)
M = TypeVar("M")


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

    async def start(self) -> None:
        """Loads the models and warms them up.

        Raises:
            TorchlessError: GPU_UNAVAILABLE, or the reason why there is no lease.
            SettingsError: The settings do not fit a model.
        """
        # Before the first model, and with it torch, is loaded: CUDA fixes its visible devices then.
        await self._lease.take()
        try:
            await self._start_engine()
        except BaseException:
            await self._lease.release()
            raise

    async def _start_engine(self) -> None:
        models = [await self._load_model(own) for own in self._models]
        engine = self._make(models)
        await engine.start()
        self._engine = engine

    async def _load_model(self, own: S) -> M:
        try:
            return await asyncio.to_thread(self._load, own)
        except TorchlessError:
            raise
        except Exception:
            # The exception may not say which of several models it is about.
            logger.error("model %s could not be loaded", own.id)
            raise

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
