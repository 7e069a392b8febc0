"""Properties of the scheduler under arbitrary traffic."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.serving.batching.scheduler import Batch, BatchLimits, Scheduler, Work

Incoming = list[tuple[str, list[int], str | None]]
BUDGET = 64
LIMITS = BatchLimits(max_tokens=BUDGET, max_items=6, padding_share=0.25, free_padding_tokens=8)

lengths = st.lists(st.integers(1, BUDGET), min_size=1, max_size=20)
requests = st.tuples(st.sampled_from(["a", "b"]), lengths, st.sampled_from([None, "bulk", "small"]))
traffic = st.lists(requests, min_size=1, max_size=15)


def scheduler(limits: BatchLimits = LIMITS) -> Scheduler[int]:
    return Scheduler(lambda key: limits)


def work(key: Hashable, sizes: list[int], flow: Hashable = None, expires_at: float | None = None) -> Work[int]:
    return Work(key, sizes, list(range(len(sizes))), flow, expires_at)


def drain(subject: Scheduler[int]) -> list[Batch[int]]:
    made = []
    while (one := subject.next_batch()) is not None:
        made.append(one)
    return made


@given(traffic)
def test_every_item_is_served_once_and_nothing_else(incoming: Incoming) -> None:
    subject = scheduler()
    works = [work(*each) for each in incoming]
    for each in works:
        subject.add(each)
    served = [item for one in drain(subject) for item in one.items]
    wanted = {(each, index) for each in works for index in range(len(each.lengths))}
    assert len(served) == len(wanted)
    assert set(served) == wanted
    assert (subject.waiting_items, subject.waiting_tokens, subject.waiting_requests) == (0, 0, 0)


@given(traffic)
def test_batch_has_one_key_and_keeps_its_limits(incoming: Incoming) -> None:
    subject = scheduler()
    for each in incoming:
        subject.add(work(*each))
    for one in drain(subject):
        sizes = [w.lengths[i] for w, i in one.items]
        assert {w.key for w, _ in one.items} == {one.key}
        assert 1 <= len(sizes) <= LIMITS.max_items
        assert one.padded_tokens == max(sizes) * len(sizes) <= BUDGET
        padding = one.padded_tokens - sum(sizes)
        assert padding <= LIMITS.free_padding_tokens + LIMITS.padding_share * one.padded_tokens


@given(traffic)
def test_counts_match_the_waiting_items(incoming: Incoming) -> None:
    subject = scheduler()
    works = [work(*each) for each in incoming]
    for each in works:
        subject.add(each)
    while True:
        assert subject.waiting_items == sum(len(w.waiting) for w in works)
        assert subject.waiting_tokens == sum(w.waiting_tokens for w in works)
        assert subject.waiting_requests == sum(bool(w.waiting) for w in works)
        if subject.next_batch() is None:
            break


@given(traffic, lengths)
@settings(max_examples=50)
def test_no_request_starves_however_many_arrive(incoming: Incoming, mine: list[int]) -> None:
    """With a fresh request before every batch, the k-th turn of a request still comes within a bound.

    F requests stand before its first turn. Between its turns every newcomer is served once while as many and F more
    arrive, so F, 2F, 3F, ... batches lie between turns.
    """
    subject = scheduler()
    for key, sizes, _ in incoming:
        subject.add(work(key, sizes))
    patient = work("a", mine)
    subject.add(patient)
    before = len(incoming) + 1
    turns = len(mine)
    bound = before * (turns + 1) * (turns + 2) // 2
    batches = 0
    while patient.waiting:
        subject.add(work("a", [BUDGET]))  # as long as a batch holds, so it shares a batch with no other
        subject.next_batch()
        batches += 1
        assert batches <= bound


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.data())
def test_flow_gets_its_turn_within_as_many_batches_as_there_are_flows(flows: list[str], data: st.DataObject) -> None:
    """However much the others send meanwhile."""
    subject = scheduler()
    mine = work("a", [BUDGET] * 30, flow="mine")
    for flow in flows:
        subject.add(work("a", [BUDGET], flow=flow))
    subject.add(mine)
    since = 0
    while mine.waiting:
        for flow in data.draw(st.lists(st.sampled_from("abcd"), max_size=3)):
            subject.add(work("a", [BUDGET], flow=flow))
        made = subject.next_batch()
        assert made is not None
        since = 0 if made.items[0][0] is mine else since + 1
        assert since <= len("abcd")


def test_new_request_waits_one_turn_of_each_request_before_it() -> None:
    subject = scheduler()
    for _ in range(3):
        subject.add(work("a", [BUDGET] * 50))
    newcomer = work("a", [BUDGET])
    subject.add(newcomer)
    served_by = [next(iter(one.items))[0] for one in (subject.next_batch() for _ in range(4)) if one]
    assert served_by[3] is newcomer


def test_bulk_request_leaves_capacity_for_small_ones() -> None:
    subject = scheduler(BatchLimits(max_tokens=1000, max_items=6, padding_share=0.25, free_padding_tokens=8))
    bulk = work("a", [10] * 100)
    small = [work("a", [10]) for _ in range(4)]
    subject.add(bulk)
    for each in small:
        subject.add(each)
    first = subject.next_batch()
    assert first is not None
    assert {w for w, _ in first.items} == {bulk, *small}


def test_tenants_get_equal_turns_whatever_their_number_of_requests() -> None:
    subject = scheduler()
    crowd = [work("a", [BUDGET], flow="crowd") for _ in range(10)]
    for each in crowd:
        subject.add(each)
    for _ in range(2):
        subject.add(work("a", [BUDGET], flow="alone"))
    flows = [one.items[0][0].flow for one in drain(subject)[:4]]
    assert flows == ["crowd", "alone", "crowd", "alone"]


def test_items_of_similar_length_share_a_batch() -> None:
    subject = scheduler(BatchLimits(max_tokens=400, max_items=6, padding_share=0.25, free_padding_tokens=8))
    subject.add(work("a", [10, 100, 11, 98, 9, 99]))
    long, short = drain(subject)
    assert sorted(w.lengths[i] for w, i in long.items) == [98, 99, 100]
    assert sorted(w.lengths[i] for w, i in short.items) == [9, 10, 11]


@given(traffic, st.data())
def test_dropped_work_is_never_served(incoming: Incoming, data: st.DataObject) -> None:
    subject = scheduler()
    works = [work(*each) for each in incoming]
    for each in works:
        subject.add(each)
    subject.next_batch()
    gone = data.draw(st.sampled_from(works))
    left = gone.waiting_tokens
    assert subject.drop(gone) == left
    assert subject.drop(gone) == 0
    assert all(w is not gone for one in drain(subject) for w, _ in one.items)
    assert subject.waiting_tokens == 0


def test_expired_work_is_dropped_and_returned() -> None:
    subject = scheduler()
    late, timely, patient = work("a", [3, 4], expires_at=10), work("a", [5], expires_at=11), work("a", [6])
    for each in (late, timely, patient):
        subject.add(each)
    assert subject.drop_expired(10) == [(late, 7)]
    assert {w for one in drain(subject) for w, _ in one.items} == {timely, patient}


def test_item_larger_than_a_batch_is_refused() -> None:
    subject = scheduler()
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        subject.add(work("a", [BUDGET + 1]))
    assert subject.waiting_requests == 0


def test_equal_requests_finish_one_after_another() -> None:
    subject = scheduler(BatchLimits(max_tokens=10_000, max_items=64, padding_share=0.25, free_padding_tokens=8))
    works = [work("a", [10] * 32) for _ in range(64)]
    for each in works:
        subject.add(each)
    finished: dict[int, int] = {}
    for number in range(1, 33):
        assert subject.next_batch() is not None
        for index, each in enumerate(works):
            if not each.waiting:
                finished.setdefault(index, number)
    assert len(finished) == 64
    assert sum(finished.values()) / 64 < 20  # 16.5 if served strictly one by one, 32 in lock step


def test_tokens_before_a_request_are_of_requests_with_no_more_tokens_left() -> None:
    subject = scheduler()
    for each in ([4, 4], [30] * 9, [9]):
        subject.add(work("a", each))
    assert subject.tokens_before(work("a", [8])) == 8
    assert subject.tokens_before(work("a", [9])) == 17
    assert subject.tokens_before(work("a", [9], flow="other")) == 0


def test_budget_limits_the_batch_but_not_its_first_item() -> None:
    subject = scheduler(BatchLimits(max_tokens=1000, max_items=64, padding_share=0.25, free_padding_tokens=8))
    subject.add(work("a", [100, 10, 10, 10, 10]))
    sizes = [[w.lengths[i] for w, i in one.items] for one in (subject.next_batch(20) for _ in range(3)) if one]
    assert sizes == [[100], [10, 10], [10, 10]]
