"""The embedding service behind the cache: which revision of each model it serves, and whether it is down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from torchless.clients.cache.entry import Inputs, ModelRevision
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingModelInfo, Embeddings, EmbedOptions
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.contracts.field_path import FieldPath

_LIST_TIMEOUT_S = 5.0
_LIST_RETRY_S = 2.0
_MAX_NAMES = 1024


class EmbeddingService(Protocol):
    """A service that computes embeddings: `EmbeddingClient`, or a wrapper around it."""

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """Vectors of `inputs`, in their order; raises `TorchlessError`."""
        ...

    async def list_models(self, context: CallContext) -> Sequence[EmbeddingModelInfo]:
        """The models served, the default one first; raises `TorchlessError`."""
        ...


class Revisions:
    """Maps each model name that requests use to the revision that the service serves now.

    Args:
        on_update: Called with all known names whenever the service reported what it serves.
        on_replacement: Called when a model has another revision than before.
    """

    def __init__(
        self, on_update: Callable[[Mapping[str, ModelRevision]], None], on_replacement: Callable[[], None]
    ) -> None:
        self._on_update = on_update
        self._on_replacement = on_replacement
        self._ids: dict[str, str] = {}
        self._models: dict[str, ModelRevision] = {}
        self._changed_at: dict[str, float] = {}
        self._settled = asyncio.Event()
        self._listed = False

    def known(self) -> dict[str, ModelRevision]:
        """The model of each name; the empty name means the default model."""
        return {name: self._models[model_id] for name, model_id in self._ids.items()}

    def of(self, name: str) -> ModelRevision | None:
        """The model of `name`; None if it is not known."""
        model_id = self._ids.get(name)
        return None if model_id is None else self._models[model_id]

    @property
    def is_settled(self) -> bool:
        """Whether `settled` would return at once."""
        return self._settled.is_set()

    async def settled(self) -> None:
        """Waits until the service was asked what it serves, whether it answered or not.

        No entry is served before: the model may have been replaced.
        """
        await self._settled.wait()

    def settle(self) -> None:
        """Records that the service was asked."""
        self._settled.set()

    def unsettle(self) -> None:
        """Records that the service must be asked again before an entry is served."""
        self._settled.clear()

    def answered(self, name: str, model: ModelRevision, asked_at: float) -> None:
        """Records that `model` answered a request for the name `name`, sent at `asked_at` (monotonic seconds).

        An answer to a request sent before the model changed says nothing about what is served now.
        """
        if self.of(name) == model or asked_at < self._changed_at.get(model.id, asked_at):
            return
        if len(self._ids) >= _MAX_NAMES:
            self._ids.clear()
        self._set(name, model)
        self._set(model.id, model)
        self._on_update(self.known())

    def listed(self, models: Iterable[ModelRevision]) -> None:
        """Records that the service serves these models, the default one first, and no others."""
        self._listed = True
        serving = list(models)
        ids = {model.id for model in serving}
        self._ids = {name: model_id for name, model_id in self._ids.items() if name and model_id in ids}
        for model in serving:
            self._set(model.id, model)
        if serving:
            self._set("", serving[0])
        self._on_update(self.known())

    def remembered(self, known: Mapping[str, ModelRevision]) -> None:
        """Records what was served earlier; it counts until the service itself reports what it serves."""
        if self._listed:
            return
        for name, model in known.items():
            if name not in self._ids and self._models.setdefault(model.id, model) == model:
                self._ids[name] = model.id

    def _set(self, name: str, model: ModelRevision) -> None:
        before = self._models.get(model.id)
        self._ids[name] = model.id
        if before == model:
            return
        self._models[model.id] = model
        self._changed_at[model.id] = time.monotonic()
        if before is not None:
            self._on_replacement()


class WatchedService:
    """Calls the service and keeps what each answer and error reveals about it.

    Args:
        service: What computes.
        revisions: Receives the served revisions.
        is_down: Tells whether the service is down; None: the last calls decide.
        endpoint_changes: Counts the changes among the endpoints, as `CapabilityClient.endpoint_changes`.
        may_serve: Tells whether the service may be ready. While it is not, it is not asked what it serves.
    """

    def __init__(
        self,
        service: EmbeddingService,
        revisions: Revisions,
        is_down: Callable[[], bool] | None,
        endpoint_changes: Callable[[], int],
        may_serve: Callable[[], bool] = lambda: True,
    ) -> None:
        self._service = service
        self._revisions = revisions
        self._is_down = is_down
        self._endpoint_changes = endpoint_changes
        self._changes = endpoint_changes()
        self._must_list = asyncio.Event()
        self._may_serve = may_serve
        self._failure: ErrorKind | None = None

    @property
    def down(self) -> bool:
        """Whether the last call found no service, or one without its device."""
        return self._failure is not None if self._is_down is None else self._is_down()

    def notice_changes(self) -> None:
        """Unsettles the revisions if an endpoint may serve another model than when the models were listed.

        A restarted endpoint was unreachable in between. While the service is down, entries are served as they are.
        """
        changes = self._endpoint_changes()
        if changes != self._changes and not self.down:
            self._changes = changes
            self._must_list.set()
            self._revisions.unsettle()

    def settle(self) -> None:
        """Settles the revisions, unless an endpoint changed since the last listing began."""
        if not self._must_list.is_set():
            self._revisions.settle()

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        """The answer of the service; raises what the service raises."""
        asked_at = time.monotonic()
        try:
            answer = await self._service.embed(inputs, options, context)
        except TorchlessError as error:
            self._failed(error)
            raise
        self._failure = None
        self._revisions.answered(options.model, ModelRevision(answer.model, answer.revision), asked_at)
        return answer

    async def list_models(self, timeout_s: float = _LIST_TIMEOUT_S) -> bool:
        """Asks which models are served.

        Returns:
            Whether the service answered.
        """
        if not self._may_serve():
            return False
        try:
            models = await self._service.list_models(CallContext(deadline=Deadline.after(timeout_s)))
        except TorchlessError as error:
            self._failed(error)
            return False
        if self._failure is not ErrorKind.GPU_UNAVAILABLE:  # a service without its device still lists its models
            self._failure = None
        self._revisions.listed([ModelRevision(model.id, model.revision) for model in models])
        return True

    async def watch(self, interval_s: float, answered: bool) -> None:
        """Lists the models every `interval_s` seconds, sooner after a failure or a change; never returns."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s if answered else min(interval_s, _LIST_RETRY_S)):
                    await self._must_list.wait()
            self._must_list.clear()
            answered = await self.list_models()
            self.settle()

    def _failed(self, error: TorchlessError) -> None:
        if error.kind.policy.service_down:
            self._failure = error.kind


def check_shape(answer: Embeddings, inputs: Inputs) -> None:
    """Checks that `answer` has one vector and one token count per input.

    Raises:
        TorchlessError: INTERNAL, when it has not.
    """
    if not len(inputs) == len(answer.vectors) == len(answer.token_counts):
        raise TorchlessError(
            ErrorKind.INTERNAL,
            f"the embedding service returned {len(answer.vectors)} vectors for {len(inputs)} inputs",
        )


def with_request_indices(error: TorchlessError, indices: Sequence[int]) -> TorchlessError:
    """`error` about some inputs of a request, with the inputs' indices in the whole request.

    Args:
        error: What the service reported about the inputs that it was sent.
        indices: Index of each of them in the whole request.
    """

    def rename(path: FieldPath) -> FieldPath:
        match path:
            case ("texts" | "token_ids" as name, int(index), *rest) if index < len(indices):
                return (name, indices[index], *rest)
        return path

    renamed = error.with_paths(rename)
    index = renamed.metadata.get("index", "")
    if index.isdecimal() and int(index) < len(indices):
        renamed.metadata["index"] = str(indices[int(index)])
    return renamed
