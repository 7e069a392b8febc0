"""Embeddings from the cache if it has them, otherwise from the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from torchless.clients.cache.entry import (
    Entry,
    Inputs,
    ModelRevision,
    Scope,
    Scopes,
    UncacheableInputError,
    entries_of,
    matrix_of,
)
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.service import (
    EmbeddingService,
    Revisions,
    WatchedService,
    check_shape,
    with_request_indices,
)
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.single_flight import InFlightCall, NotSharedError, Result, SingleFlight
from torchless.clients.cache.store import Store
from torchless.clients.cache.tasks import end, spawn
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import Embeddings, EmbedOptions, Granularity
from torchless.clients.timings import NO_TIMINGS, Timings
from torchless.clients.translate import out_of_time
from torchless.contracts.errors import TorchlessError

_FIRST_LIST_S = 1.0
"""Time that the service has, at start, to list its models, before what Redis remembers is used."""
_LONGEST_WAIT_S = 2.0
"""Time that a request waits for the service to list its models, before what was known is used."""
_SMALL_CALL, _LARGER_CALL = 8, 4
"""A request joins a call with up to so many inputs, or so many times as many as the request has."""
_MOST_SHARED = 16
"""Most ids of other requests in an answer."""
_ROUNDS = 2
"""How often a request waits for other requests' calls before it computes everything itself."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """Embeddings, and where they came from."""

    embeddings: Embeddings
    """As the service would have answered. The timings are those of what was computed now."""
    hits: int
    """Inputs that were in the cache."""
    misses: int
    """Inputs that were not."""
    degraded: bool = False
    """Whether the service is down, so that only cached inputs can be answered."""
    shared_with: tuple[str, ...] = ()
    """Ids of the requests whose calls computed inputs of this one too; not all, when they are many."""


@dataclass(slots=True)
class _Request:
    """One request to the cache."""

    inputs: Inputs
    options: EmbedOptions
    context: CallContext

    @property
    def deadline(self) -> Deadline:
        """Until when the caller waits."""
        return self.context.deadline or Deadline.NEVER

    def check_deadline(self) -> None:
        """Raises DEADLINE once the deadline has passed."""
        if self.deadline.expired:
            raise out_of_time("embedding")


@dataclass(slots=True)
class _Computed:
    """The inputs of a request that were computed now."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    answers: list[Embeddings] = field(default_factory=list)
    own: Embeddings | None = None
    """The answer to the call that this request started."""
    shared_with: dict[str, None] = field(default_factory=dict)
    """Ids of the requests that started the other calls."""

    def add(self, result: Result, call: InFlightCall, digests: Sequence[bytes]) -> None:
        """Takes the entries of `digests` from the result of `call`."""
        self.answers.append(result.answer)
        for digest in digests:
            self.entries[digest] = result.entries[call.rows[digest]]

    def models(self) -> set[ModelRevision]:
        """The weights that computed it."""
        return {ModelRevision(answer.model, answer.revision) for answer in self.answers}


class EmbeddingCache:
    """Caches the answers of the embedding service by exact input. Create it inside a running event loop.

    An entry is found by tenant, model, revision, prompt, dimensions, normalisation, truncation and the exact input.
    Missing inputs of a request are computed in one call, equal inputs once; inputs that are being computed for another
    request are waited for. Token-level vectors are not cached.

    Args:
        service: What computes; its owner closes it, after the cache.
        settings: The cache's settings.
        metrics: Where it counts; None: nowhere that is shown.
        is_down: Tells whether the service is down; None: the last calls decide.
        endpoint_changes: Counts the changes among the service's endpoints. After one, no entry is served before the
            service has said which models it serves. None: only answers and the periodic listing show a replaced model.
        may_serve: Tells whether the service may be ready. While it is not, it is not asked what it serves.
        deadline_s: How long a caller without a deadline waits for another request's call, in seconds.
    """

    def __init__(
        self,
        service: EmbeddingService,
        settings: CacheSettings,
        *,
        metrics: CacheMetrics | None = None,
        is_down: Callable[[], bool] | None = None,
        endpoint_changes: Callable[[], int] | None = None,
        may_serve: Callable[[], bool] = lambda: True,
        deadline_s: float = 30.0,
    ) -> None:
        self._settings = settings
        self._deadline_s = deadline_s
        self._metrics = metrics or CacheMetrics(CollectorRegistry())
        self._revisions = Revisions(self._remember, self._metrics.revisions.inc)
        self._service = WatchedService(service, self._revisions, is_down, endpoint_changes or (lambda: 0), may_serve)
        self._scopes = Scopes()
        self._calls = SingleFlight()
        self._store = Store(settings, self._metrics) if settings.enabled else None
        self._watcher = spawn(self._watch(self._store), "the watch of revisions") if self._store else None

    @property
    def enabled(self) -> bool:
        """Whether anything is cached."""
        return self._store is not None

    async def close(self) -> None:
        """Ends the calls in flight, the background tasks and the connections to Redis."""
        if self._watcher is not None:
            await end(self._watcher)
        await self._calls.close()
        if self._store is not None:
            await self._store.close()

    async def embed(
        self,
        inputs: Inputs,
        options: EmbedOptions = EmbedOptions(),
        context: CallContext = CallContext(),
    ) -> CachedAnswer:
        """Vectors of `inputs`, in their order.

        Args:
            inputs: Texts, or token ids of the model's vocabulary, without special tokens.
            options: How to embed them.
            context: Tenant, request id, trace and deadline of the call.

        Raises:
            TorchlessError: As the service, about the fields of this request.
        """
        request = _Request(inputs, options, context)
        if self._store is None or not len(inputs) or options.granularity is not Granularity.TEXT:
            return await self._bypass(request)
        self._service.notice_changes()
        if not self._revisions.is_settled:
            await self._settled(request)
        model = self._revisions.of(options.model)
        # An unknown model has no revision yet, and so no entries; but equal requests for it still share a call.
        scope = self._scopes.of(context.tenant, model or ModelRevision(options.model, ""), options)
        try:
            digests = scope.digests(inputs)
        except UncacheableInputError:
            return await self._bypass(request)
        found = await self._store.get(scope, digests, request.deadline) if model else {}
        missing = _first_indices(digests, found)
        if not missing:
            return self._hit(scope, digests, found)
        return await self._miss(request, scope, digests, found, missing)

    def _hit(self, scope: Scope, digests: Sequence[bytes], found: Mapping[bytes, Entry]) -> CachedAnswer:
        degraded = self._service.down
        self._metrics.hit.inc()
        if degraded:
            self._metrics.degraded.inc()
        answer = _embeddings([found[digest] for digest in digests], scope.model, NO_TIMINGS)
        return CachedAnswer(answer, hits=len(digests), misses=0, degraded=degraded)

    async def _miss(
        self,
        request: _Request,
        scope: Scope,
        digests: Sequence[bytes],
        found: Mapping[bytes, Entry],
        missing: Mapping[bytes, int],
    ) -> CachedAnswer:
        (self._metrics.partial if found else self._metrics.miss).inc()
        computed = await self._compute_missing(request, scope, missing)
        models = computed.models() | ({scope.model} if found else set())
        if len(models) > 1:
            # The model was replaced meanwhile, and an answer holds vectors of one revision.
            return await self._bypass(request)
        hits = sum(digest in found for digest in digests) if found else 0
        answer = computed.own
        if answer is None or len(answer.vectors) != len(digests):
            entries = {**found, **computed.entries}
            answer = _embeddings([entries[digest] for digest in digests], models.pop(), computed.answers[0].timings)
        shared_with = tuple(computed.shared_with)[:_MOST_SHARED]
        return CachedAnswer(answer, hits=hits, misses=len(digests) - hits, shared_with=shared_with)

    async def _bypass(self, request: _Request) -> CachedAnswer:
        self._metrics.uncached.inc()
        request.check_deadline()
        answer = await self._service.embed(request.inputs, request.options, request.context)
        return CachedAnswer(answer, hits=0, misses=len(request.inputs))

    async def _compute_missing(self, request: _Request, scope: Scope, missing: Mapping[bytes, int]) -> _Computed:
        computed = _Computed()
        for number in range(_ROUNDS + 1):
            left = {digest: index for digest, index in missing.items() if digest not in computed.entries}
            if not left:
                break
            await self._round(request, scope, left, computed, join=number < _ROUNDS)
        return computed

    async def _round(
        self, request: _Request, scope: Scope, left: Mapping[bytes, int], computed: _Computed, *, join: bool
    ) -> None:
        """Computes what no call computes yet, and waits for the rest, some of which may fail."""
        joined: dict[InFlightCall, list[bytes]] = {}
        own: list[bytes] = []
        for digest in left:
            call = self._calls.find(digest) if join else None
            if call is None or not _is_worth_joining(call, request):
                own.append(digest)
            else:
                joined.setdefault(call, []).append(digest)
        calls = [*joined]
        for call in calls:
            call.join()
        try:
            if own:
                indices = [left[digest] for digest in own]
                inputs: Inputs = [request.inputs[index] for index in indices]  # type: ignore[assignment]
                work = self._compute(request, scope, own, inputs)
                call = self._calls.begin(own, work, joinable=join, request_id=request.context.request_id)
                call.join()
                calls.append(call)
                result = await self._own_result(call, request, indices)
                computed.own = result.answer
                computed.add(result, call, own)
            for call, digests in joined.items():
                await self._shared_result(call, digests, request, computed)
        finally:
            for call in calls:
                call.leave()

    async def _compute(self, request: _Request, scope: Scope, digests: Sequence[bytes], inputs: Inputs) -> Result:
        request.check_deadline()
        answer = await self._service.embed(inputs, request.options, request.context)
        check_shape(answer, inputs)
        entries = entries_of(answer)
        model = ModelRevision(answer.model, answer.revision)
        if model != scope.model:
            scope = self._scopes.of(request.context.tenant, model, request.options)
            digests = scope.digests(inputs)
        # Without a revision, nothing would show that the model was replaced.
        if self._store is not None and model.revision:
            self._store.put(scope, digests, entries)
        return Result(answer, entries)

    @staticmethod
    async def _own_result(call: InFlightCall, request: _Request, indices: Sequence[int]) -> Result:
        try:
            return await call.own_result()
        except TorchlessError as error:
            if len(indices) == len(request.inputs):
                raise
            raise with_request_indices(error, indices) from error

    async def _shared_result(
        self, call: InFlightCall, digests: Sequence[bytes], request: _Request, computed: _Computed
    ) -> None:
        deadline = request.context.deadline or Deadline.after(self._deadline_s)
        try:
            result = await call.shared_result(digests, deadline)
        except NotSharedError:
            return
        self._metrics.joined.inc(len(digests))
        computed.add(result, call, digests)
        if call.request_id:
            computed.shared_with[call.request_id] = None

    async def _settled(self, request: _Request) -> None:
        try:
            async with asyncio.timeout(request.deadline.earlier_of(Deadline.after(_LONGEST_WAIT_S)).timeout_s):
                await self._revisions.settled()
        except TimeoutError:
            request.check_deadline()
            self._revisions.settle()  # the other requests need not wait as long again

    async def _watch(self, store: Store) -> None:
        recall = asyncio.create_task(store.remembered())
        try:
            answered = await self._service.list_models(_FIRST_LIST_S)
            if not answered and (await asyncio.wait((recall,), timeout=_FIRST_LIST_S))[0]:
                self._revisions.remembered(recall.result())
            self._service.settle()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._warm(store, recall))
                group.create_task(self._service.watch(self._settings.revision_interval_s, answered))
        finally:
            recall.cancel()

    async def _warm(self, store: Store, recall: asyncio.Task[dict[str, ModelRevision]]) -> None:
        self._revisions.remembered(await recall)
        await store.warm(set(self._revisions.known().values()))

    def _remember(self, models: Mapping[str, ModelRevision]) -> None:
        if self._store is not None:
            self._store.remember(models)


def _is_worth_joining(call: InFlightCall, request: _Request) -> bool:
    """Whether `call` does not compute so much more that a call for this request alone would be answered much sooner."""
    return len(call.rows) <= max(_SMALL_CALL, _LARGER_CALL * len(request.inputs))


def _first_indices(digests: Sequence[bytes], found: Mapping[bytes, Entry]) -> dict[bytes, int]:
    """The first index in the request of each input that was not found."""
    indices: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        if digest not in found:
            indices.setdefault(digest, index)
    return indices


def _embeddings(entries: Sequence[Entry], model: ModelRevision, timings: Timings) -> Embeddings:
    return Embeddings(
        vectors=matrix_of(entries),
        token_counts=[entry.tokens for entry in entries],
        model=model.id,
        revision=model.revision,
        timings=timings,
        truncated=[index for index, entry in enumerate(entries) if entry.truncated],
    )
