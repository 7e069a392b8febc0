"""Which revision of each model is served, from answers and from the service's list of models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from torchless.clients.cache.keys import Served

_NAMES_KEPT = 1024


class Revisions:
    """What each name that requests give a model stands for now.

    Args:
        told: Called with what is known, whenever the service said what it serves.
        replaced: Called when a model has another revision than before.
    """

    def __init__(self, told: Callable[[Mapping[str, Served]], None], replaced: Callable[[], None]) -> None:
        self._told = told
        self._replaced = replaced
        self._ids: dict[str, str] = {}
        self._revisions: dict[str, str] = {}
        self._changed_at: dict[str, float] = {}
        self._settled = asyncio.Event()
        self._listed = False

    def known(self) -> dict[str, Served]:
        """What each name stands for; the empty one is the default model's."""
        return {name: Served(model, self._revisions[model]) for name, model in self._ids.items()}

    def of(self, name: str) -> Served | None:
        """What `name` stands for; None where nothing is known of it."""
        model = self._ids.get(name)
        return None if model is None else Served(model, self._revisions[model])

    @property
    def is_settled(self) -> bool:
        """Whether `settled` would return at once."""
        return self._settled.is_set()

    async def settled(self) -> None:
        """Returns once the service was asked for the first time, whether it answered or not.

        What Redis remembers is not served before: the model may have been replaced meanwhile.
        """
        await self._settled.wait()

    def settle(self) -> None:
        """The service was asked."""
        self._settled.set()

    def answered(self, name: str, served: Served, asked_at: float) -> None:
        """A request for the model `name`, sent at `asked_at` (monotonic seconds), was answered by `served`.

        An answer that was asked for before the model changed says nothing about what is served now.
        """
        if self.of(name) == served or asked_at < self._changed_at.get(served.model, asked_at):
            return
        if len(self._ids) >= _NAMES_KEPT:
            self._ids.clear()
        self._set(name, served)
        self._set(served.model, served)
        self._told(self.known())

    def listed(self, models: Iterable[Served]) -> None:
        """The service serves these, the default one first, and no others."""
        self._listed = True
        serving = list(models)
        ids = {each.model for each in serving}
        self._ids = {name: model for name, model in self._ids.items() if name and model in ids}
        for each in serving:
            self._set(each.model, each)
        if serving:
            self._set("", serving[0])
        self._told(self.known())

    def remembered(self, known: Mapping[str, Served]) -> None:
        """What was served when it was last written down; counts until the service itself has said what it serves."""
        if self._listed:
            return
        for name, served in known.items():
            if name not in self._ids and self._revisions.setdefault(served.model, served.revision) == served.revision:
                self._ids[name] = served.model

    def _set(self, name: str, served: Served) -> None:
        before = self._revisions.get(served.model)
        self._ids[name] = served.model
        if before == served.revision:
            return
        self._revisions[served.model] = served.revision
        self._changed_at[served.model] = time.monotonic()
        if before is not None:
            self._replaced()
