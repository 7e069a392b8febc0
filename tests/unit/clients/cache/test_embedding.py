"""What a request gets from the cache, and what it gets from the service."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.unit.clients.cache.conftest import MakeCache
from tests.unit.clients.cache.service import MODEL, TOO_LONG, HashService, answer_of, same
from tests.waiting import until
from torchless.clients.cache import embedding as embedding_cache
from torchless.clients.cache.embedding import EmbeddingCache
from torchless.clients.cache.entry import Inputs
from torchless.clients.cache.metrics import CacheMetrics
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingModelInfo, Embeddings, EmbedOptions, Granularity, InputType, Truncation
from torchless.contracts.errors import ErrorKind, TorchlessError

ALICE = CallContext(tenant="alice")
BOB = CallContext(tenant="bob")
DOWN = [kind for kind in ErrorKind if kind.policy.service_down]


@dataclass
class Rollout(HashService):
    """Two endpoints: any call may reach the old model or the new one, and take a moment."""

    def __post_init__(self) -> None:
        self._random = random.Random(1)

    async def embed(self, inputs: Inputs, options: EmbedOptions, context: CallContext) -> Embeddings:
        self.calls.append([str(each) for each in inputs])
        revision = self._random.choice(("r1", "r2"))
        for _ in range(self._random.randint(0, 3)):
            await asyncio.sleep(0)
        return answer_of(inputs, options, revision)

    async def list_models(self, context: CallContext) -> list[EmbeddingModelInfo]:
        self.revision = self._random.choice(("r1", "r2"))
        return await super().list_models(context)


async def test_cached_input_is_not_computed_again(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    first = await cache.embed(["a", "b"])
    second = await cache.embed(["b", "a"])
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 2, 2, 0)
    assert same(first.embeddings, answer_of(["a", "b"]))
    assert same(second.embeddings, answer_of(["b", "a"]))
    assert service.calls == [["a", "b"]]
    assert not second.embeddings.vectors.flags.writeable
    assert second.embeddings.vectors.dtype == np.float32


async def test_cached_input_that_was_truncated_still_says_so(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    await cache.embed(["a", "f"])
    for inputs, truncated in ((["f", "a", "g"], [0, 2]), (["g", "b", "f", "f"], [0, 2, 3]), (["f"], [0]), (["a"], [])):
        answer = await cache.embed(inputs)
        assert answer.hits > 0
        assert answer.embeddings.truncated == truncated


async def test_only_missing_inputs_are_computed_and_equal_ones_once(
    make_cache: MakeCache, service: HashService
) -> None:
    cache = make_cache()
    await cache.embed(["b"])
    inputs = ["a", "b", "c", "a", "b", "c"]
    answer = await cache.embed(inputs)
    assert same(answer.embeddings, answer_of(inputs))
    assert (answer.hits, answer.misses) == (2, 4)
    assert service.calls == [["b"], ["a", "c"]]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6),
            st.sampled_from(["", MODEL]),
            st.sampled_from([InputType.UNSPECIFIED, InputType.QUERY]),
            st.sampled_from([0, 8]),
            st.booleans(),
            st.sampled_from([Truncation.RIGHT, Truncation.NONE]),
            st.sampled_from([Granularity.TEXT, Granularity.TOKEN]),
        ),
        max_size=12,
    ),
    memory=st.sampled_from([0, 0.004, 1]),
    together=st.booleans(),
)
def test_answers_equal_those_of_the_service(requests: list[tuple[object, ...]], memory: float, together: bool) -> None:
    async def run() -> None:
        cache = EmbeddingCache(HashService(), CacheSettings(memory_mib=memory))

        async def ask(inputs: list[str], model: str, purpose: InputType, *rest: object) -> None:
            dimensions, normalize, truncation, granularity = rest
            options = EmbedOptions(model, purpose, "", normalize, dimensions, truncation, granularity)  # type: ignore[arg-type]
            assert same((await cache.embed(inputs, options)).embeddings, answer_of(inputs, options))

        asked = [ask(*each) for each in requests]  # type: ignore[arg-type]
        if together:
            await asyncio.gather(*asked)
        else:
            for each in asked:
                await each
        await cache.close()

    asyncio.run(run())


async def test_token_ids_are_cached_as_texts_are(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    await cache.embed([[1, 2], [3]])
    answer = await cache.embed([[3], [4], [1, 2]])
    assert same(answer.embeddings, answer_of([[3], [4], [1, 2]]))
    assert service.calls == [["[1, 2]", "[3]"], ["[4]"]]


async def test_tenants_do_not_share_entries(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    await cache.embed(["a"], context=ALICE)
    assert (await cache.embed(["a"], context=BOB)).hits == 0
    assert (await cache.embed(["a"])).hits == 0
    assert (await cache.embed(["a"], context=ALICE)).hits == 1
    service.gate = asyncio.Event()
    both = [asyncio.create_task(cache.embed(["new"], context=each)) for each in (ALICE, BOB)]
    await asyncio.sleep(0.01)
    service.gate.set()
    await asyncio.gather(*both)
    assert service.calls[-2:] == [["new"], ["new"]]
    assert [each.tenant for each in service.contexts[-2:]] == ["alice", "bob"]


async def test_errors_name_the_inputs_of_the_whole_request(make_cache: MakeCache) -> None:
    cache = make_cache()
    await cache.embed(["a", "b"])
    with pytest.raises(TorchlessError) as caught:
        await cache.embed(["a", "c", "b", TOO_LONG, "c", TOO_LONG])
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert [each.field for each in caught.value.violations] == ["texts[3]"]
    assert caught.value.message == "texts[3]: is too long"
    assert caught.value.metadata == {"index": "3"}


@pytest.mark.parametrize("inputs", [["a", 3], [[-1]], [[2**33]]])
async def test_inputs_without_a_key_go_to_the_service_unchanged(
    make_cache: MakeCache, service: HashService, inputs: list[object]
) -> None:
    answer = await make_cache().embed(inputs)  # type: ignore[arg-type]
    assert answer.hits == 0
    assert service.calls == [[str(each) for each in inputs]]


async def test_a_disabled_cache_passes_everything_on(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache(enabled=False)
    for _ in range(2):
        assert same((await cache.embed(["a", "a"])).embeddings, answer_of(["a", "a"]))
    assert service.calls == [["a", "a"], ["a", "a"]]
    assert service.listed == 0


async def test_token_level_vectors_are_not_cached(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    options = EmbedOptions(granularity=Granularity.TOKEN)
    for _ in range(2):
        assert same((await cache.embed(["abc", "d"], options)).embeddings, answer_of(["abc", "d"], options))
    assert len(service.calls) == 2


@pytest.mark.parametrize("kind", DOWN)
async def test_cached_answers_are_marked_degraded_while_the_service_is_down(
    make_cache: MakeCache, service: HashService, kind: ErrorKind
) -> None:
    cache = make_cache()
    await cache.embed(["a", "b"])
    assert not (await cache.embed(["a"])).degraded
    service.failure = TorchlessError(kind, "down")
    with pytest.raises(TorchlessError) as caught:
        await cache.embed(["a", "new"])
    assert caught.value.kind is kind
    answer = await cache.embed(["b", "a"])
    assert answer.degraded
    assert same(answer.embeddings, answer_of(["b", "a"]))
    service.failure = None
    assert not (await cache.embed(["new"])).degraded
    assert not (await cache.embed(["a"])).degraded


async def test_service_outage_and_return_are_noticed_without_a_request(
    make_cache: MakeCache, service: HashService
) -> None:
    cache = make_cache(revision_interval_s=0.01)
    await cache.embed(["a"])
    service.failure = TorchlessError(ErrorKind.UNREACHABLE, "down")
    await until(lambda: degraded(cache, True))
    service.failure = None
    await until(lambda: degraded(cache, False))


async def test_given_function_decides_whether_the_service_is_down(make_cache: MakeCache) -> None:
    down = True
    cache = make_cache(arguments={"is_down": lambda: down})
    await cache.embed(["a"])
    assert (await cache.embed(["a"])).degraded
    down = False
    assert not (await cache.embed(["a"])).degraded


async def test_service_that_cannot_be_ready_is_not_asked_for_its_models(
    make_cache: MakeCache, service: HashService
) -> None:
    may_serve = False
    cache = make_cache(revision_interval_s=0.01, arguments={"may_serve": lambda: may_serve})
    await cache.embed(["a"])
    await asyncio.sleep(0.05)
    assert service.listed == 0
    may_serve = True
    await until(lambda: service.listed > 0)


@pytest.mark.parametrize("model", ["", MODEL])
async def test_entries_of_a_replaced_model_are_not_served(
    make_cache: MakeCache, service: HashService, model: str
) -> None:
    cache = make_cache(revision_interval_s=0.01)
    options = EmbedOptions(model=model)
    await cache.embed(["a"], options)
    service.revision = "r2"

    async def answered_by_r2() -> bool:
        return (await cache.embed(["a"], options)).embeddings.revision == "r2"

    await until(answered_by_r2)
    assert same((await cache.embed(["a"], options)).embeddings, answer_of(["a"], replace(options, model=""), "r2"))


async def test_no_entry_is_served_after_a_changed_endpoint_until_the_models_are_listed(
    make_cache: MakeCache, service: HashService
) -> None:
    changes = 0
    cache = make_cache(arguments={"endpoint_changes": lambda: changes})
    await cache.embed(["a"])
    assert (await cache.embed(["a"])).hits == 1
    service.revision, changes = "r2", 1
    answers = await asyncio.gather(*(cache.embed(["a"]) for _ in range(3)))
    assert all(same(answer.embeddings, answer_of(["a"], revision="r2")) for answer in answers)
    assert (service.listed, (await cache.embed(["a"])).hits) == (2, 1)
    changes = 2  # the same model is back
    assert same((await cache.embed(["a"])).embeddings, answer_of(["a"], revision="r2"))
    assert (service.calls, service.listed) == ([["a"], ["a"]], 3)


async def test_change_during_a_listing_causes_another(make_cache: MakeCache, service: HashService) -> None:
    changes = 0
    cache = make_cache(arguments={"endpoint_changes": lambda: changes})
    await cache.embed(["a"])
    service.list_gate = asyncio.Event()
    changes = 1
    early = asyncio.create_task(cache.embed(["a"]))
    await until(lambda: service.listed == 2)
    changes = 2
    late = asyncio.create_task(cache.embed(["a"]))
    await asyncio.sleep(0)
    service.list_gate.set()
    # The listing that was under way has said "r1"; the next one says otherwise.
    service.list_gate, service.revision = None, "r2"
    assert (await late).embeddings.revision == (await early).embeddings.revision == "r2"


async def test_entries_are_served_as_they_are_while_the_service_is_down(
    make_cache: MakeCache, service: HashService
) -> None:
    down, changes = False, 0
    cache = make_cache(arguments={"is_down": lambda: down, "endpoint_changes": lambda: changes})
    await cache.embed(["a"])
    service.revision, down, changes = "r2", True, 1
    assert same((await cache.embed(["a"])).embeddings, answer_of(["a"]))
    down, changes = False, 2
    assert same((await cache.embed(["a"])).embeddings, answer_of(["a"], revision="r2"))


async def test_listing_that_hangs_or_fails_does_not_hold_up_requests_for_long(
    make_cache: MakeCache, service: HashService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "_LONGEST_WAIT_S", 0.01)
    changes = 0
    cache = make_cache(arguments={"is_down": lambda: False, "endpoint_changes": lambda: changes})
    await cache.embed(["a"])
    service.list_gate, changes = asyncio.Event(), 1
    assert (await cache.embed(["a"])).hits == 1
    changes = 2
    with pytest.raises(TorchlessError) as caught:
        await cache.embed(["a"], context=CallContext(deadline=Deadline.after(0)))
    assert caught.value.kind is ErrorKind.DEADLINE
    service.failure = TorchlessError(ErrorKind.UNREACHABLE, "down")
    service.list_gate.set()
    changes = 3
    assert (await cache.embed(["a"])).hits == 1


async def test_no_answer_mixes_two_revisions_during_a_rollout(make_cache: MakeCache, service: HashService) -> None:
    """Calls go now to the old endpoint and now to the new one, in any order."""
    cache = make_cache(of=(rollout := Rollout()))
    order = random.Random(0)

    async def ask() -> None:
        inputs = order.choices("abcdefgh", k=order.randint(1, 6))
        answer = (await cache.embed(inputs)).embeddings
        assert same(answer, answer_of(inputs, revision=answer.revision)), "all vectors are of the stated revision"
        seen.add(answer.revision)

    seen: set[str] = set()
    for _ in range(60):
        await asyncio.gather(*(ask() for _ in range(5)))
    assert seen == {"r1", "r2"}
    assert len(rollout.calls) < 300, "some were in the cache"


async def test_answer_reveals_a_replaced_model_at_once(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    await cache.embed(["a", "b"])
    service.revision = "r2"
    answer = await cache.embed(["a", "new"])
    assert same(answer.embeddings, answer_of(["a", "new"], revision="r2")), "no answer mixes revisions"
    assert (await cache.embed(["a"])).embeddings.revision == "r2"
    assert (await cache.embed(["b"])).embeddings.revision == "r2"


async def test_late_answer_of_the_old_model_does_not_bring_it_back(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache()
    await cache.embed(["a"])
    late = HashService(revision="r1", gate=asyncio.Event())
    asked = asyncio.create_task(cache.embed(["late"]))
    service.gate = late.gate
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    service.gate, service.revision = None, "r2"
    assert (await cache.embed(["new"])).embeddings.revision == "r2"
    assert late.gate is not None
    late.gate.set()
    assert (await asked).embeddings.revision == "r1"
    assert (await cache.embed(["a"])).embeddings.revision == "r2"


async def test_answers_without_a_revision_are_not_cached(make_cache: MakeCache, service: HashService) -> None:
    service.revision = ""
    cache = make_cache()
    for _ in range(2):
        assert (await cache.embed(["a"])).hits == 0


async def test_service_down_at_start_does_not_delay_requests(service: HashService) -> None:
    service.failure = TorchlessError(ErrorKind.UNREACHABLE, "down")
    cache = EmbeddingCache(service, CacheSettings())
    with pytest.raises(TorchlessError) as caught:
        await cache.embed(["a"])
    assert caught.value.kind is ErrorKind.UNREACHABLE
    await cache.close()


async def test_the_hit_ratio_follows_from_the_metrics(make_cache: MakeCache) -> None:
    registry = CollectorRegistry()
    cache = make_cache(arguments={"metrics": CacheMetrics(registry)})
    await cache.embed(["a", "b"])
    await cache.embed(["a", "b", "a"])
    await cache.embed(["a", "c"])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"torchless_cache_{name}", labels)

    assert value("lookups_total", level="memory", outcome="hit") == 4
    assert value("lookups_total", level="memory", outcome="miss") == 3
    found = {each: value("requests_total", outcome=each) for each in ("hit", "partial", "miss")}
    assert found == {"hit": 1, "partial": 1, "miss": 1}
    assert value("memory_entries") == 3
    assert (value("memory_bytes") or 0) > 3 * 64


async def degraded(cache: EmbeddingCache, expected: bool) -> bool:
    return (await cache.embed(["a"])).degraded is expected
