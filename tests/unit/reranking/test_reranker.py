"""The reranker with a fake model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import REGISTRY

from bentos.models.tokens import TextTooLongError
from bentos.reranking.model import EncodedQuery, LongDocuments, Pair, Query, ScoreForm
from bentos.reranking.reranker import RerankAnswer, Reranker, RerankJob
from bentos.reranking.settings import RerankingSettings
from tests.fakes import FakeRerankingModel, pair_score, word_id
from torchless.contracts.errors import ErrorKind, TorchlessError


@asynccontextmanager
async def reranker(*models: FakeRerankingModel, **options: Any) -> AsyncIterator[Reranker]:
    made = models or (FakeRerankingModel(),)
    own = [{"id": each.id} for each in made]
    subject = Reranker(made, RerankingSettings.model_validate({"warm_up_batches": 0, "models": own, **options}))
    await subject.start()
    try:
        yield subject
    finally:
        for each in made:
            each.gate.set()
        await subject.stop()


@asynccontextmanager
async def held(subject: Reranker, model: FakeRerankingModel) -> AsyncIterator[None]:
    """Inside, a request of another holds the model's device, so that what comes after it waits."""
    model.gate.clear()
    plug = asyncio.create_task(subject.rerank(job("plug", "plug", model=model.id)))
    await asyncio.to_thread(model.running.wait)
    await asyncio.sleep(0.01)  # its tokens no longer count as waiting
    try:
        yield
    finally:
        model.gate.set()
        await plug


async def started(*calls: Any) -> list[asyncio.Task[Any]]:
    """The calls as tasks that have got as far as they get before they wait."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0.01)
    return tasks


async def outcomes(calls: Iterable[Any]) -> list[Any]:
    """What each call answers or raises."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


def job(query: str, *documents: str, **how: Any) -> RerankJob:
    return RerankJob([Query(query, documents)], **how)


def words(count: int, name: str = "w") -> list[str]:
    return [f"{name}{n}" for n in range(count)]


def raw(query: str, document: str) -> float:
    """The fake model's score of a pair that it reads whole."""
    return pair_score([0, *map(word_id, query.split()), 0, *map(word_id, document.split())])


def floats(scores: Iterable[float]) -> NDArray[np.float32]:
    return np.array(list(scores), dtype=np.float32)


def kinds(outcomes: Sequence[object]) -> list[ErrorKind | None]:
    return [each.kind if isinstance(each, TorchlessError) else None for each in outcomes]


def assert_right(answer: RerankAnswer, queries: Sequence[Query]) -> None:
    assert len(answer.queries) == len(queries)
    for query, got in zip(queries, answer.queries, strict=True):
        assert got.scores.dtype == np.float32
        np.testing.assert_array_equal(got.scores, floats(raw(query.text, each) for each in query.documents))
        lengths = [len(query.text.split()) + len(each.split()) + 2 for each in query.documents]
        assert got.token_counts == lengths


async def test_scores_keep_the_order_of_queries_and_documents() -> None:
    model = FakeRerankingModel()
    queries = [Query(f"q{n} asks", [" ".join(words(1 + (n * m) % 9)) for m in range(n)]) for n in range(1, 12)]
    async with reranker(model) as subject:
        answer = await subject.rerank(RerankJob(queries, form="raw"))
    assert_right(answer, queries)
    assert answer.info == model.info
    assert len(model.batches) > 1
    assert all(max(one) * len(one) <= model.max_batch_tokens for one in model.batches)


REQUEST = st.lists(st.lists(st.integers(1, 10), min_size=1, max_size=8), min_size=1, max_size=4)


@given(st.lists(REQUEST, min_size=1, max_size=5), st.integers(1, 6))
@hypothesis_settings(max_examples=30, deadline=None)
def test_every_request_gets_its_own_scores_from_any_batches(requests: list[list[list[int]]], max_items: int) -> None:
    async def scenario() -> None:
        jobs = [
            [Query(f"r{r} q{q}", [" ".join(words(n, f"d{d}")) for d, n in enumerate(lengths)]) for q, lengths in made]
            for r, made in ((r, list(enumerate(request))) for r, request in enumerate(requests))
        ]
        async with reranker(batching={"max_items": max_items}) as subject:
            answers = await asyncio.gather(*(subject.rerank(RerankJob(queries, form="raw")) for queries in jobs))
        for queries, answer in zip(jobs, answers, strict=True):
            assert_right(answer, queries)

    asyncio.run(scenario())


async def test_requests_with_different_options_share_a_batch() -> None:
    model = FakeRerankingModel()
    async with reranker(model) as subject:
        async with held(subject, model):
            calls = await started(
                subject.rerank(job("one", "a", "b")),
                subject.rerank(job("two", "a", form="unit", long_documents="windows")),
                subject.rerank(job("three", "a", form="raw", max_tokens_per_doc=7, long_documents="refuse")),
            )
        await asyncio.gather(*calls)
    assert [len(one) for one in model.batches] == [1, 4]


@pytest.mark.parametrize(("form", "factor"), [("raw", 1), ("model", 2), ("unit", 0.25)])
async def test_score_form_is_chosen_per_request(form: ScoreForm, factor: float) -> None:
    async with reranker() as subject:
        answer = await subject.rerank(job("q", "a", "b", form=form))
    np.testing.assert_array_equal(answer.queries[0].scores, floats([raw("q", "a"), raw("q", "b")]) * factor)


LONG = words(30)
ROOM = 13
"""Words of a document that the fake model reads behind a query of one word."""


@pytest.mark.parametrize(
    ("configured", "asked", "max_tokens_per_doc", "read"),
    [
        ("cut", None, 0, [LONG[:ROOM]]),
        ("cut", "cut_start", 0, [LONG[-ROOM:]]),
        ("cut", "windows", 0, [LONG[:13], LONG[12:25], LONG[24:]]),
        ("windows", None, 0, [LONG[:13], LONG[12:25], LONG[24:]]),
        ("windows", "cut", 0, [LONG[:ROOM]]),
        ("cut", None, 5, [LONG[:5]]),
        ("cut", "cut_start", 5, [LONG[-5:]]),
        ("windows", None, 20, [LONG[:13], LONG[12:20]]),
        ("cut", "refuse", 13, [LONG[:ROOM]]),
    ],
)
async def test_long_documents_follow_the_request_or_the_settings(
    configured: Any, asked: LongDocuments | None, max_tokens_per_doc: int, read: list[list[str]]
) -> None:
    """The best window's score counts, and every window's tokens do."""
    model = FakeRerankingModel(long_documents=configured)
    how: Any = {"form": "raw", "long_documents": asked, "max_tokens_per_doc": max_tokens_per_doc}
    async with reranker(model) as subject:
        answer = await subject.rerank(job("q", "short", " ".join(LONG), "short too", **how))
    windows = [" ".join(each) for each in read]
    wanted = [raw("q", "short"), max(raw("q", each) for each in windows), raw("q", "short too")]
    np.testing.assert_array_equal(answer.queries[0].scores, floats(wanted))
    assert answer.queries[0].token_counts == [4, sum(len(each) + 3 for each in read), 5]


async def test_tokens_per_document_default_to_the_models_setting() -> None:
    async with reranker(FakeRerankingModel(max_tokens_per_doc=4)) as subject:
        configured = await subject.rerank(job("q", " ".join(LONG)))
        asked = await subject.rerank(job("q", " ".join(LONG), max_tokens_per_doc=6))
    assert (configured.queries[0].token_counts, asked.queries[0].token_counts) == ([7], [9])


@pytest.mark.parametrize(
    ("query", "document", "named"),
    [
        (
            "q",
            " ".join(words(14)),
            "queries[1].documents[2]: has 17 tokens as input of the model, which reads at most 16",
        ),
        (" ".join(words(16)), "short", "queries[1].query: has 17 tokens; the model reads at most 16"),
    ],
)
async def test_refuse_names_the_input_that_is_too_long(query: str, document: str, named: str) -> None:
    model = FakeRerankingModel()
    queries = [Query("fine", ["fine"]), Query(query, ["fine", "fine", document])]
    async with reranker(model) as subject:
        with pytest.raises(TorchlessError) as caught:
            await subject.rerank(RerankJob(queries, long_documents="refuse"))
        assert model.batches == []
        assert_right(await subject.rerank(job("q", "fine", form="raw")), [Query("q", ["fine"])])
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("bad", "kind", "named"),
    [
        (RerankJob([]), ErrorKind.INVALID_INPUT, "queries: must not be empty"),
        (job("q"), ErrorKind.INVALID_INPUT, "queries[0].documents: must not be empty"),
        (
            RerankJob([Query("q", ["a"]), Query("q", [])]),
            ErrorKind.INVALID_INPUT,
            "queries[1].documents: must not be empty",
        ),
        (job("", "a"), ErrorKind.INVALID_INPUT, "queries[0].query: must not be empty"),
        (
            job("x" * 51, "a", long_documents="refuse"),
            ErrorKind.INPUT_TOO_LARGE,
            "queries[0].query: has 51 characters; the maximum without truncation is 50",
        ),
        (
            job("q", "a", "x" * 101, long_documents="refuse"),
            ErrorKind.INPUT_TOO_LARGE,
            "queries[0].documents[1]: has 101 characters; the maximum without truncation is 100",
        ),
        (
            RerankJob([Query("q", ["x" * 100])] * 2, long_documents="refuse"),
            ErrorKind.INPUT_TOO_LARGE,
            "202 characters in total; the maximum without truncation is 200",
        ),
        (RerankJob([Query("q", ["a"])] * 4), ErrorKind.INPUT_TOO_LARGE, "queries: hold 4 queries; the maximum is 3"),
        (
            RerankJob([Query("q", ["a"] * 3)] * 2),
            ErrorKind.INPUT_TOO_LARGE,
            "queries: hold 6 documents; the maximum is 5",
        ),
        (job("q", "a", model="other"), ErrorKind.NOT_FOUND, "'other'"),
    ],
)
async def test_invalid_field_is_named_and_the_next_request_works(bad: RerankJob, kind: ErrorKind, named: str) -> None:
    model = FakeRerankingModel()
    limits = {"max_queries": 3, "max_documents": 5, "max_query_characters": 50, "max_document_characters": 100}
    async with reranker(model, **limits, max_request_characters=200) as subject:
        with pytest.raises(TorchlessError) as caught:
            await subject.rerank(bad)
        assert model.batches == []
        assert_right(await subject.rerank(job("q", "fine", form="raw")), [Query("q", ["fine"])])
    assert caught.value.kind is kind
    assert named in caught.value.message


async def test_empty_document_is_scored() -> None:
    async with reranker() as subject:
        assert_right(await subject.rerank(job("q", "a", "", form="raw")), [Query("q", ["a", ""])])


async def test_texts_without_tokens_are_refused() -> None:
    class Bare(FakeRerankingModel):
        def encode(self, query: str, documents: Sequence[str], *more: Any) -> EncodedQuery:
            asked = [word_id(word) for word in query.split()]
            return EncodedQuery(
                [[Pair([word_id(word) for word in text.split()], query_ids=asked)] for text in documents], 0
            )

    async with reranker(Bare()) as subject:
        for query, documents, named in (
            ("q", ["a", " "], "queries[0].documents[1]: has no tokens"),
            (" ", ["a"], "queries[0].query: has no tokens"),
        ):
            with pytest.raises(TorchlessError) as caught:
                await subject.rerank(job(query, *documents))
            assert caught.value.kind is ErrorKind.INVALID_INPUT
            assert named in caught.value.message


async def test_truncated_documents_and_queries_are_named_and_counted() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("torchless_truncated_inputs_total", labels) or 0

    labels = {"service": "reranking", "model": "counted"}
    long = " ".join(words(40))
    queries = [Query("q", ["a", long, "b", long]), Query(" ".join(words(8)), ["a"]), Query("q", ["a"])]
    async with reranker(FakeRerankingModel(id="counted", max_tokens_per_doc=30)) as subject:
        answer = await subject.rerank(RerankJob(queries))
        assert [each.truncated for each in answer.queries] == [[1, 3], [], []]
        assert [each.query_truncated for each in answer.queries] == [False, True, False]
        assert counted() == 3
        windows = await subject.rerank(job("q", long, " ".join(words(30)), long_documents="windows"))
        assert windows.queries[0].truncated == [0]
        limited = await subject.rerank(job("q", "a b c", "a", max_tokens_per_doc=2))
        assert limited.queries[0].truncated == [0]
        assert counted() == 5


async def test_refusal_reads_more_than_the_configured_part_of_a_document() -> None:
    model = FakeRerankingModel(max_tokens_per_doc=3)
    async with reranker(model) as subject:
        document = " ".join(words(10))
        whole = await subject.rerank(job("q", document, form="raw", long_documents="refuse"))
        assert_right(whole, [Query("q", [document])])
        limited = await subject.rerank(job("q", document, form="raw", long_documents="refuse", max_tokens_per_doc=3))
    assert (whole.queries[0].truncated, limited.queries[0].truncated) == ([], [0])


async def test_documents_and_queries_of_any_length_may_be_truncated() -> None:
    limits = {"max_query_characters": 5, "max_document_characters": 5, "max_request_characters": 9}
    async with reranker(FakeRerankingModel(), **limits) as subject:
        answer = await subject.rerank(job("w " * 1000, "w " * 1000))
    assert (answer.queries[0].truncated, answer.queries[0].query_truncated) == ([0], True)


async def test_text_that_can_only_be_tokenized_as_a_whole_is_named() -> None:
    class Whole(FakeRerankingModel):
        def encode(self, query: str, documents: Sequence[str], *more: Any) -> EncodedQuery:
            raise TextTooLongError(next(text for text in (query, *documents) if len(text) > 3), 3)

    async with reranker(Whole()) as subject:
        for query, documents, named in (
            ("q", ["a", "long", "long"], "queries[0].documents[1]: has 4 characters"),
            ("long", ["a"], "queries[0].query: has 4 characters"),
        ):
            with pytest.raises(TorchlessError) as caught:
                await subject.rerank(job(query, *documents))
            assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
            assert named in caught.value.message


async def test_ten_thousand_documents_are_the_maximum() -> None:
    documents = [f"d{n}" for n in range(10_000)]
    async with reranker(FakeRerankingModel(max_batch_tokens=65_536), batching={"max_items": 4096}) as subject:
        assert_right(await subject.rerank(job("q", *documents, form="raw")), [Query("q", documents)])
        with pytest.raises(TorchlessError) as caught:
            await subject.rerank(job("q", *documents, "one more"))
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert "hold 10001 documents; the maximum is 10000" in caught.value.message


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
async def test_score_that_is_not_finite_fails_only_its_own_request(score: float) -> None:
    model = FakeRerankingModel(answers={"broken": score})
    async with reranker(model) as subject:
        async with held(subject, model):
            calls = await started(
                subject.rerank(job("q", "before", form="raw")),
                subject.rerank(job("q", "fine", "broken", "fine")),
                subject.rerank(job("q", "after", form="raw")),
            )
        before, broken, after = await outcomes(calls)
        assert len(model.batches) == 2
    assert kinds([broken]) == [ErrorKind.INTERNAL]
    assert "not finite" in broken.message
    assert_right(before, [Query("q", ["before"])])
    assert_right(after, [Query("q", ["after"])])


@pytest.mark.parametrize("score", [math.nan, -math.inf])
@pytest.mark.parametrize("place", [0, 15, 29])
async def test_score_that_is_not_finite_is_not_hidden_by_a_better_window(score: float, place: int) -> None:
    text = " ".join([*LONG[:place], "broken", *LONG[place + 1 :]])
    async with reranker(FakeRerankingModel(answers={"broken": score})) as subject:
        with pytest.raises(TorchlessError, match="not finite"):
            await subject.rerank(job("q", text, long_documents="windows"))


async def test_failing_pair_fails_only_its_own_request() -> None:
    model = FakeRerankingModel(poison="poison")
    async with reranker(model) as subject:
        async with held(subject, model):
            calls = await started(
                subject.rerank(job("q", "a", form="raw")),
                subject.rerank(job("q", "b", "poison", "c")),
                subject.rerank(job("q", "d", form="raw")),
            )
        first, poisoned, last = await outcomes(calls)
    assert kinds([poisoned]) == [ErrorKind.INTERNAL]
    assert "poison" not in poisoned.message
    assert_right(first, [Query("q", ["a"])])
    assert_right(last, [Query("q", ["d"])])


async def test_lost_device_fails_every_request() -> None:
    model = FakeRerankingModel(failure=TorchlessError(ErrorKind.GPU_UNAVAILABLE, "gone"))
    async with reranker(model) as subject:
        got = await outcomes([subject.rerank(job("q", text)) for text in ("a", "b")])
    assert kinds(got) == [ErrorKind.GPU_UNAVAILABLE] * 2


async def test_request_that_expires_in_the_queue_is_not_computed() -> None:
    model = FakeRerankingModel()
    async with reranker(model) as subject:
        async with held(subject, model):
            calls = await started(subject.rerank(job("q", "late"), expires_at=time.monotonic() + 0.005))
        got = await outcomes(calls)
    assert kinds(got) == [ErrorKind.DEADLINE]
    assert len(model.batches) == 1


async def test_request_that_is_cancelled_in_the_queue_is_not_computed() -> None:
    model = FakeRerankingModel()
    async with reranker(model) as subject:
        async with held(subject, model):
            doomed, kept = await started(
                subject.rerank(job("q", "a", "b")), subject.rerank(job("q", "kept", form="raw"))
            )
            doomed.cancel()
            await asyncio.wait([doomed])
        assert_right(await kept, [Query("q", ["kept"])])
    assert doomed.cancelled()
    assert [len(one) for one in model.batches] == [1, 1]


class Counting(FakeRerankingModel):
    """Counts what it tokenizes."""

    encoded = 0

    def encode(self, *arguments: Any) -> Any:
        self.encoded += 1
        return super().encode(*arguments)


async def test_requests_above_the_limit_are_refused_before_tokenization_with_a_hint() -> None:
    model = Counting()
    async with reranker(model, batching={"max_waiting_requests": 3}) as subject:
        async with held(subject, model):
            waiting = await started(*(subject.rerank(job("q", "waits")) for _ in range(2)))
            with pytest.raises(TorchlessError) as caught:
                await subject.rerank(job("q", "too many"))
            assert model.encoded == 3
        assert kinds(await asyncio.gather(*waiting)) == [None, None]
        assert_right(await subject.rerank(job("q", "fine", form="raw")), [Query("q", ["fine"])])
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s is not None


async def test_request_larger_than_the_queue_is_input_too_large_and_names_the_field() -> None:
    async with reranker(batching={"max_waiting_tokens": 30}) as subject:
        with pytest.raises(TorchlessError) as caught:
            await subject.rerank(job("q", *words(8)))
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert "queries: hold 32 tokens in total; the maximum per call is 30" in caught.value.message


async def test_two_models_never_share_a_batch() -> None:
    first, second = FakeRerankingModel(id="first"), FakeRerankingModel(id="second")
    async with reranker(first, second) as subject:
        answers = await asyncio.gather(
            *(subject.rerank(job("q", f"d{n}", model=["", "first", "second"][n % 3])) for n in range(30))
        )
        assert [answer.info.id for answer in answers] == ["first", "first", "second"] * 10
        assert [info.id for info in subject.models()] == ["first", "second"]
    assert sum(map(len, first.batches)) == 20
    assert sum(map(len, second.batches)) == 10


async def test_models_share_a_queue_only_on_the_same_device() -> None:
    first, beside = FakeRerankingModel(id="first", device="cuda:0"), FakeRerankingModel(id="beside", device="cuda:0")
    elsewhere = FakeRerankingModel(id="elsewhere", device="cuda:1")
    async with reranker(first, beside, elsewhere) as subject:
        async with held(subject, first):
            waiting = await started(subject.rerank(job("q", "d", model="beside")))
            await subject.rerank(job("q", "d", model="elsewhere"))
            assert (len(beside.batches), len(elsewhere.batches)) == (0, 1)
        await asyncio.gather(*waiting)
    assert len(beside.batches) == 1


async def test_every_model_is_warmed_up_before_the_first_request() -> None:
    first, second = FakeRerankingModel(id="first"), FakeRerankingModel(id="second", device="cuda:0")
    async with reranker(first, second, warm_up_batches=1):
        assert sum(map(len, first.batches)) == 33
        assert sum(map(len, second.batches)) == 33


async def test_limits_for_callers_do_not_stop_the_warm_up() -> None:
    limits = {"max_documents": 2, "max_query_characters": 5, "max_document_characters": 5, "max_request_characters": 9}
    model = FakeRerankingModel()
    async with reranker(model, warm_up_batches=1, **limits) as subject:
        assert model.batches
        assert_right(await subject.rerank(job("q", "fine", form="raw")), [Query("q", ["fine"])])


async def test_shared_query_counts_once_in_the_token_budget() -> None:
    """Read apart, one of 100 tokens before ten documents of 2 takes a batch of 120, not ten of 102."""

    class Apart(FakeRerankingModel):
        def encode(self, query: str, documents: Sequence[str], *more: Any) -> EncodedQuery:
            return EncodedQuery([[Pair([1, 2], query_ids=[0] * 100)] for _ in documents], query_tokens=0)

        def score(self, pairs: Sequence[Pair]) -> list[float]:
            self.batches.append([pair.tokens for pair in pairs])
            return [0.5] * len(pairs)

    model = Apart(max_batch_tokens=120)
    async with reranker(model) as subject:
        answer = await subject.rerank(RerankJob([Query("long", [f"d{n}" for n in range(10)])], form="raw"))
    assert model.batches == [[102] * 10]
    assert answer.queries[0].token_counts == [102] * 10


async def test_repeated_document_is_scored_once_and_ties() -> None:
    model = FakeRerankingModel()
    documents = ["one two", "q three", "one two", "q three", "one two"]
    async with reranker(model) as subject:
        answer = await subject.rerank(RerankJob([Query("q", documents)], form="raw"))
        twice = Query("q", ["a", " ".join(words(40)), " ".join(words(40))])
        with pytest.raises(TorchlessError, match=r"queries\[0\].documents\[1\]"):
            await subject.rerank(RerankJob([twice], long_documents="refuse"))
    assert_right(answer, [Query("q", documents)])
    assert [len(lengths) for lengths in model.batches] == [2]
