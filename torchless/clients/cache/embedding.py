"""Embeddings from the cache where it has them, else from the service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from torchless.clients.cache.call import Call
from torchless.clients.cache.entry import Entry, entries_of, matrix_of
from torchless.clients.cache.keys import Inputs, Scope, Scopes, Served, UncacheableInputError
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.renaming import renumbered
from torchless.clients.cache.revisions import Revisions
from torchless.clients.cache.service import EmbeddingService, WatchedService, refuse_odd
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.cache.single_flight import Flight, Flights, Landed, LeaderFailedError
from torchless.clients.cache.store import Store
from torchless.clients.cache.tasks import end, spawn
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import Embeddings, EmbedOptions, Granularity
from torchless.clients.timings import Timings
from torchless.clients.translate import out_of_time
from torchless.contracts.errors import TorchlessError

_FIRST_ASK_S = 1.0
"""How long the service has, at start, to say what it serves, before what Redis remembers is believed."""
_SMALL_FLIGHT, _LARGER_FLIGHT = 8, 4
"""A request waits for a flight of as many inputs, or of so many times as many as it has itself."""
_ROUNDS = 2
"""How often a request waits for what others compute before it computes for itself."""


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
    """Whether the service is down, so that only what is in the cache can be answered."""


@dataclass(slots=True)
class _Computed:
    """What a request has of what was computed now."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    answers: list[Embeddings] = field(default_factory=list)
    led: Embeddings | None = None
    """The answer to what this request asked for itself."""

    def add(self, landed: Landed, flight: Flight, digests: Sequence[bytes]) -> None:
        """Takes over `digests` from what landed."""
        self.answers.append(landed.answer)
        for digest in digests:
            self.entries[digest] = landed.entries[flight.rows[digest]]

    def served(self) -> set[Served]:
        """Which weights computed it."""
        return {Served(each.model, each.revision) for each in self.answers}


class EmbeddingCache:
    """Stands before the embedding service and answers what it has answered before. Made inside a running event loop.

    An entry is found by tenant, model, revision, prompt, dimensions, normalisation, truncation and the exact input.
    Inputs that a request holds and the cache does not are asked for in one call, equal ones once; those that are being
    computed for another request are waited for. One vector a token is not cached.

    Args:
        service: What computes; closed by whoever made it, after the cache.
        settings: The cache's settings.
        metrics: Where it counts; None: nowhere that is shown.
        is_down: Says whether the service is down; None: the last calls decide.
        deadline_s: How long a caller that gives no deadline waits for what another has asked for, in seconds.
    """

    def __init__(
        self,
        service: EmbeddingService,
        settings: CacheSettings,
        *,
        metrics: CacheMetrics | None = None,
        is_down: Callable[[], bool] | None = None,
        deadline_s: float = 30.0,
    ) -> None:
        self._settings = settings
        self._deadline_s = deadline_s
        self._metrics = metrics or CacheMetrics(CollectorRegistry())
        self._revisions = Revisions(self._remember, self._metrics.revisions.inc)
        self._service = WatchedService(service, self._revisions, is_down)
        self._scopes = Scopes()
        self._flights = Flights()
        self._store = Store(settings, self._metrics) if settings.enabled else None
        self._watcher = spawn(self._watch(self._store), "the watch of revisions") if self._store else None

    @property
    def enabled(self) -> bool:
        """Whether anything is kept at all."""
        return self._store is not None

    async def close(self) -> None:
        """Ends the calls in flight, the tasks and the connections to Redis."""
        if self._watcher is not None:
            await end(self._watcher)
        await self._flights.close()
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
            inputs: Texts, or token ids of the model's own vocabulary, without special tokens.
            options: How.
            context: For whom, and how long they wait.

        Raises:
            TorchlessError: As the service, about the fields of this request.
        """
        call = Call(inputs, options, context)
        if self._store is None or not len(inputs) or options.granularity is not Granularity.TEXT:
            return await self._uncached(call)
        await self._settled(call)
        served = self._revisions.of(options.model)
        # What is not known yet has no revision, and so no entries; but equal requests for it still share a flight.
        scope = self._scopes.of(context.tenant, served or Served(options.model, ""), options)
        try:
            digests = scope.digests(inputs)
        except UncacheableInputError:
            return await self._uncached(call)
        found = await self._store.get(call, scope, digests) if served else {}
        wanted = _first_places(digests, found)
        return await self._partly(call, scope, digests, found, wanted) if wanted else self._whole(scope, digests, found)

    def _whole(self, scope: Scope, digests: Sequence[bytes], found: Mapping[bytes, Entry]) -> CachedAnswer:
        degraded = self._service.down
        self._metrics.hit.inc()
        if degraded:
            self._metrics.degraded.inc()
        answer = _embeddings([found[digest] for digest in digests], scope.served, Timings())
        return CachedAnswer(answer, hits=len(digests), misses=0, degraded=degraded)

    async def _partly(
        self,
        call: Call,
        scope: Scope,
        digests: Sequence[bytes],
        found: Mapping[bytes, Entry],
        wanted: Mapping[bytes, int],
    ) -> CachedAnswer:
        (self._metrics.partial if found else self._metrics.miss).inc()
        computed = await self._computed(call, scope, wanted)
        served = computed.served() | ({scope.served} if found else set())
        if len(served) > 1:
            # The model was replaced meanwhile, and an answer holds vectors of one revision.
            return await self._uncached(call)
        hits = sum(digest in found for digest in digests) if found else 0
        answer = computed.led
        if answer is None or len(answer.vectors) != len(digests):
            entries = {**found, **computed.entries}
            answer = _embeddings([entries[digest] for digest in digests], served.pop(), computed.answers[0].timings)
        return CachedAnswer(answer, hits=hits, misses=len(digests) - hits)

    async def _uncached(self, call: Call) -> CachedAnswer:
        self._metrics.uncached.inc()
        call.check_time()
        answer = await self._service.embed(call.inputs, call.options, call.context)
        return CachedAnswer(answer, hits=0, misses=len(call.inputs))

    async def _computed(self, call: Call, scope: Scope, wanted: Mapping[bytes, int]) -> _Computed:
        computed = _Computed()
        for number in range(_ROUNDS + 1):
            left = {digest: index for digest, index in wanted.items() if digest not in computed.entries}
            if not left:
                break
            await self._round(call, scope, left, computed, follow=number < _ROUNDS)
        return computed

    async def _round(
        self, call: Call, scope: Scope, left: Mapping[bytes, int], computed: _Computed, *, follow: bool
    ) -> None:
        """Computes what nobody computes yet, and waits for the rest, some of which may not come."""
        followed: dict[Flight, list[bytes]] = {}
        own: list[bytes] = []
        for digest in left:
            flight = self._flights.find(digest) if follow else None
            if flight is None or not _is_worth_waiting_for(flight, call):
                own.append(digest)
            else:
                followed.setdefault(flight, []).append(digest)
        flights = [*followed]
        for each in flights:
            each.join()
        try:
            if own:
                led = self._depart(call, scope, own, [left[digest] for digest in own], listed=follow)
                led.join()
                flights.append(led)
                landed = await self._led(led, call, [left[digest] for digest in own])
                computed.led = landed.answer
                computed.add(landed, led, own)
            for each, digests in followed.items():
                await self._followed(each, digests, call, computed)
        finally:
            for each in flights:
                each.leave()

    def _depart(
        self, call: Call, scope: Scope, digests: Sequence[bytes], indices: Sequence[int], *, listed: bool
    ) -> Flight:
        inputs: Inputs = [call.inputs[index] for index in indices]  # type: ignore[assignment]
        return self._flights.begin(digests, self._compute(call, scope, digests, inputs), listed=listed)

    async def _compute(self, call: Call, scope: Scope, digests: Sequence[bytes], inputs: Inputs) -> Landed:
        call.check_time()
        answer = await self._service.embed(inputs, call.options, call.context)
        refuse_odd(answer, inputs)
        entries = entries_of(answer)
        served = Served(answer.model, answer.revision)
        if served != scope.served:
            scope = self._scopes.of(call.context.tenant, served, call.options)
            digests = scope.digests(inputs)
        # Without a revision nothing would tell that the model was replaced.
        if self._store is not None and served.revision:
            self._store.put(scope, digests, entries)
        return Landed(answer, entries)

    @staticmethod
    async def _led(flight: Flight, call: Call, indices: Sequence[int]) -> Landed:
        try:
            return await flight.led()
        except TorchlessError as error:
            if len(indices) == len(call.inputs):
                raise
            raise renumbered(error, indices) from error

    async def _followed(self, flight: Flight, digests: Sequence[bytes], call: Call, computed: _Computed) -> None:
        deadline = call.context.deadline or Deadline.after(self._deadline_s)
        try:
            landed = await flight.followed(digests, deadline)
        except LeaderFailedError:
            return
        self._metrics.joined.inc(len(digests))
        computed.add(landed, flight, digests)

    async def _settled(self, call: Call) -> None:
        if self._revisions.is_settled:
            return
        try:
            async with asyncio.timeout(call.deadline.timeout_s):
                await self._revisions.settled()
        except TimeoutError:
            raise out_of_time("embedding") from None

    async def _watch(self, store: Store) -> None:
        recall = asyncio.create_task(store.remembered())
        try:
            answered = await self._service.ask(_FIRST_ASK_S)
            if not answered and (await asyncio.wait((recall,), timeout=_FIRST_ASK_S))[0]:
                self._revisions.remembered(recall.result())
            self._revisions.settle()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._warm(store, recall))
                group.create_task(self._service.watch(self._settings.revision_interval_s, answered))
        finally:
            recall.cancel()

    async def _warm(self, store: Store, recall: asyncio.Task[dict[str, Served]]) -> None:
        self._revisions.remembered(await recall)
        await store.warm(set(self._revisions.known().values()))

    def _remember(self, models: Mapping[str, Served]) -> None:
        if self._store is not None:
            self._store.remember(models)


def _is_worth_waiting_for(flight: Flight, call: Call) -> bool:
    """Whether what it computes beside is not so much that one's own call would be answered long before."""
    return len(flight.rows) <= max(_SMALL_FLIGHT, _LARGER_FLIGHT * len(call.inputs))


def _first_places(digests: Sequence[bytes], found: Mapping[bytes, Entry]) -> dict[bytes, int]:
    """Where in a request each input that was not found stands first."""
    places: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        if digest not in found:
            places.setdefault(digest, index)
    return places


def _embeddings(entries: Sequence[Entry], served: Served, timings: Timings) -> Embeddings:
    return Embeddings(
        vectors=matrix_of(entries),
        token_counts=[entry.tokens for entry in entries],
        model=served.model,
        revision=served.revision,
        timings=timings,
    )
