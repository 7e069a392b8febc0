"""The life of a bento's models: loaded on a thread, put to work, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar


class Engine(Protocol):
    """What does a bento's work, without a transport."""

    async def start(self) -> None:
        """Starts threads and warms up."""

    async def stop(self) -> None:
        """Works off what waits and ends the threads."""


E = TypeVar("E", bound=Engine)
S = TypeVar("S")
M = TypeVar("M")


class ModelCapability(Generic[S, M, E]):
    """What the serving side starts and stops; base of the servicers.

    Args:
        models: Settings of the models, the default one first.
        load: Loads one model; called on a thread, since it takes seconds.
        make: Makes the engine of the loaded models, in the order of their settings.
    """

    def __init__(self, models: Sequence[S], load: Callable[[S], M], make: Callable[[list[M]], E]) -> None:
        self._models = models
        self._load = load
        self._make = make
        self._engine: E | None = None

    async def start(self) -> None:
        """Loads the models and warms them up."""
        models = [await asyncio.to_thread(self._load, own) for own in self._models]
        engine = self._make(models)
        await engine.start()
        self._engine = engine

    async def stop(self) -> None:
        """Ends the engine's threads."""
        if self._engine is not None:
            await self._engine.stop()

    @property
    def ready(self) -> E:
        """The engine; the serving side lets no call through before it is there."""
        if self._engine is None:
            raise RuntimeError("a call was let through before start() returned")
        return self._engine
