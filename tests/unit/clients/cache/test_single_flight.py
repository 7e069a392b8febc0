"""Equal inputs in flight are computed once, and no request fails because of another."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.clients.cache.conftest import MakeCache
from tests.unit.clients.cache.service import POISON, TOO_LONG, HashService, answer_of, same
from torchless.clients.cache.embedding import CachedAnswer, EmbeddingCache
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbedOptions
from torchless.contracts.errors import TOO_LATE, ErrorKind, TorchlessError

SHARED = [
    ErrorKind.UNREACHABLE,
    ErrorKind.CIRCUIT_OPEN,
    ErrorKind.GPU_UNAVAILABLE,
    ErrorKind.MODEL_UNAVAILABLE,
    ErrorKind.LOADING,
    ErrorKind.OVERLOADED,
    ErrorKind.INTERNAL,
]
OWN = sorted(set(ErrorKind) - set(SHARED))


@pytest.fixture
async def cache(make_cache: MakeCache, service: HashService) -> EmbeddingCache:
    """Its service answers when its gate opens."""
    cache = make_cache()
    await cache.embed(["known"])
    service.calls.clear()
    service.gate = asyncio.Event()
    return cache


def ask(cache: EmbeddingCache, *inputs: str, deadline_s: float | None = None) -> asyncio.Task[CachedAnswer]:
    deadline = None if deadline_s is None else Deadline.after(deadline_s)
    return asyncio.create_task(cache.embed(list(inputs), context=CallContext(deadline=deadline)))


async def rest() -> None:
    """Lets every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def gate(service: HashService) -> asyncio.Event:
    assert service.gate is not None
    return service.gate


async def test_equal_inputs_are_computed_once(cache: EmbeddingCache, service: HashService) -> None:
    asked = [ask(cache, "a", "b"), ask(cache, "b", "a"), ask(cache, "b", "c", "known", "b"), ask(cache, "c")]
    await rest()
    gate(service).set()
    answers = await asyncio.gather(*asked)
    assert service.calls == [["a", "b"], ["c"]]
    for answer, inputs in zip(answers, (["a", "b"], ["b", "a"], ["b", "c", "known", "b"], ["c"]), strict=True):
        assert same(answer.embeddings, answer_of(inputs))
    assert [(each.hits, each.misses) for each in answers] == [(0, 2), (0, 2), (1, 3), (0, 1)]


async def test_answer_names_the_requests_that_computed_its_inputs(cache: EmbeddingCache, service: HashService) -> None:
    def embed(request_id: str, *inputs: str) -> asyncio.Task[CachedAnswer]:
        return asyncio.create_task(cache.embed(list(inputs), context=CallContext(request_id)))

    asked = [embed("one", "a"), embed("two", "b"), embed("three", "a", "known", "b", "c"), embed("four", "known")]
    await rest()
    gate(service).set()
    assert [each.shared_with for each in await asyncio.gather(*asked)] == [(), (), ("one", "two"), ()]


async def test_cancelled_leader_does_not_fail_its_followers(cache: EmbeddingCache, service: HashService) -> None:
    leader = ask(cache, "a", "b")
    await rest()
    followers = [ask(cache, "a"), ask(cache, "b")]
    await rest()
    leader.cancel()
    await rest()
    gate(service).set()
    for answer, text in zip(await asyncio.gather(*followers), "ab", strict=True):
        assert same(answer.embeddings, answer_of([text]))
    assert service.calls == [["a", "b"]]
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_call_is_cancelled_when_all_requests_are_and_the_next_starts_another(
    cache: EmbeddingCache, service: HashService
) -> None:
    asked = [ask(cache, "a"), ask(cache, "a")]
    await rest()
    for each in asked:
        each.cancel()
    fresh = ask(cache, "a")
    await rest()
    assert service.cancelled == 1
    gate(service).set()
    assert same((await fresh).embeddings, answer_of(["a"]))
    assert service.calls == [["a"], ["a"]]
    assert not cache._calls._calls
    assert not cache._calls._by_digest


async def test_cancelled_follower_ends_only_itself(cache: EmbeddingCache, service: HashService) -> None:
    leader = ask(cache, "a")
    await rest()
    follower = ask(cache, "a")
    await rest()
    follower.cancel()
    await rest()
    assert follower.cancelled()
    gate(service).set()
    assert same((await leader).embeddings, answer_of(["a"]))
    assert service.cancelled == 0


async def test_followers_deadline_holds(cache: EmbeddingCache, service: HashService) -> None:
    leader = ask(cache, "a")
    await rest()
    follower = ask(cache, "a", deadline_s=0.02)
    with pytest.raises(TorchlessError) as caught:
        await follower
    assert caught.value.kind is ErrorKind.DEADLINE
    gate(service).set()
    assert same((await leader).embeddings, answer_of(["a"]))


async def test_leaders_deadline_does_not_fail_followers(cache: EmbeddingCache, service: HashService) -> None:
    leader = ask(cache, "a", "b", deadline_s=0.02)
    await rest()
    followers = [ask(cache, "a", deadline_s=60) for _ in range(3)]
    with pytest.raises(TorchlessError) as caught:
        await leader
    assert caught.value.kind is ErrorKind.DEADLINE
    await rest()
    gate(service).set()
    for answer in await asyncio.gather(*followers):
        assert same(answer.embeddings, answer_of(["a"]))
    assert service.calls == [["a", "b"], ["a"]]


async def test_leaders_invalid_input_does_not_fail_followers(cache: EmbeddingCache, service: HashService) -> None:
    leader = ask(cache, "a", TOO_LONG)
    await rest()
    followers = [ask(cache, "a", "b") for _ in range(5)]
    await rest()
    gate(service).set()
    with pytest.raises(TorchlessError) as caught:
        await leader
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    for answer in await asyncio.gather(*followers):
        assert same(answer.embeddings, answer_of(["a", "b"]))
    assert service.calls == [["a", TOO_LONG], ["b"], ["a"]]


async def test_failure_caused_by_one_input_does_not_fail_the_others(
    cache: EmbeddingCache, service: HashService
) -> None:
    leader = ask(cache, "a", POISON)
    await rest()
    followers, equal = [ask(cache, "a") for _ in range(3)], ask(cache, POISON, "a")
    await rest()
    gate(service).set()
    for failed in (leader, equal):
        with pytest.raises(TorchlessError) as caught:
            await failed
        assert caught.value.kind is ErrorKind.INTERNAL
    for answer in await asyncio.gather(*followers):
        assert same(answer.embeddings, answer_of(["a"]))
    assert service.calls == [["a", POISON], ["a"]]


@pytest.mark.parametrize("kind", SHARED)
async def test_service_failure_is_shared_by_all_requests(
    cache: EmbeddingCache, service: HashService, kind: ErrorKind
) -> None:
    asked = [ask(cache, "a") for _ in range(5)]
    await rest()
    service.failure = TorchlessError(kind, "down", retry_after_s=2.0)
    gate(service).set()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in errors] == [TorchlessError] * 5
    assert {(each.kind, each.retry_after_s) for each in errors if isinstance(each, TorchlessError)} == {(kind, 2.0)}
    assert len({id(each) for each in errors}) == 5
    assert service.calls == [["a"]]


@pytest.mark.parametrize("kind", OWN)
async def test_callers_fault_costs_a_bounded_number_of_rounds(
    cache: EmbeddingCache, service: HashService, kind: ErrorKind
) -> None:
    asked = [ask(cache, "a") for _ in range(10)]
    await rest()
    service.failure = TorchlessError(kind, "yours")
    gate(service).set()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [each.kind for each in errors if isinstance(each, TorchlessError)] == [kind] * 10
    # The two first callers, and each of the others by itself, all at once.
    assert len(service.calls) == 10


async def test_defect_fails_the_leader_alone(cache: EmbeddingCache, service: HashService) -> None:
    asked = [ask(cache, "a"), ask(cache, "a")]
    await rest()
    service.failure = ValueError("a defect")  # type: ignore[assignment]
    gate(service).set()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in errors] == [ValueError, ValueError]
    assert len(service.calls) == 2


async def test_unknown_models_do_not_share_calls(cache: EmbeddingCache, service: HashService) -> None:
    service.others = {"x": "of x", "y": "of y"}
    asked = [asyncio.create_task(cache.embed(["a"], EmbedOptions(model=name))) for name in ("x", "y", "x", "")]
    await rest()
    gate(service).set()
    answers = [each.embeddings for each in await asyncio.gather(*asked)]
    assert [each.revision for each in answers] == ["of x", "of y", "of x", "r1"]
    assert same(answers[2], answer_of(["a"], revision="of x", model="x"))
    assert len(service.calls) == 3
    again = await cache.embed(["a"], EmbedOptions(model="y"))
    assert (again.hits, again.embeddings.revision) == (1, "of y")


async def test_closing_ends_calls_in_flight(cache: EmbeddingCache, service: HashService) -> None:
    asked = [ask(cache, "a"), ask(cache, "a"), ask(cache, "a", "b")]
    await rest()
    await cache.close()
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {each.kind for each in errors if isinstance(each, TorchlessError)} == {ErrorKind.UNREACHABLE}
    assert len(errors) == 3
    assert service.cancelled >= 1
    assert {each for each in asyncio.all_tasks() if each is not asyncio.current_task()} == set()


async def test_the_service_gets_the_callers_deadline(cache: EmbeddingCache, service: HashService) -> None:
    gate(service).set()
    await ask(cache, "a", deadline_s=5.0)
    deadline = service.contexts[-1].deadline
    assert deadline is not None
    assert 0 < deadline.remaining_s < 5.0
    await ask(cache, "b")
    assert service.contexts[-1].deadline is None


async def test_small_request_does_not_wait_for_a_large_one(cache: EmbeddingCache, service: HashService) -> None:
    huge = ask(cache, "a", *(f"{n}" for n in range(40)))
    await rest()
    small, another = ask(cache, "a"), ask(cache, "a")
    await rest()
    assert [len(call) for call in service.calls] == [41, 1], "the second small one waits for the first"
    gate(service).set()
    for task in (huge, small, another):
        await task
    assert same((await small).embeddings, answer_of(["a"]))


async def test_refusal_for_the_leaders_deadline_fails_the_leader_alone(
    cache: EmbeddingCache, service: HashService
) -> None:
    leader, follower = ask(cache, "a", deadline_s=0.3), ask(cache, "a")
    await rest()
    service.failure = TorchlessError(ErrorKind.OVERLOADED, "too late", metadata={"reason": TOO_LATE})
    gate(service).set()
    await asyncio.gather(leader, follower, return_exceptions=True)
    assert service.calls == [["a"], ["a"]], "the follower asks for itself"
