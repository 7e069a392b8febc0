"""The texts of a run."""

from __future__ import annotations

from benchmarks.data.texts import passages
from benchmarks.plan import Length


def test_the_same_seed_gives_the_same_texts() -> None:
    assert passages(50, Length.SHORT, seed=3) == passages(50, Length.SHORT, seed=3)
    assert passages(50, Length.SHORT, seed=3) != passages(50, Length.SHORT, seed=4)


def test_lengths_of_short_texts_vary_more_than_of_long_texts() -> None:
    short = [len(text.split()) for text in passages(500, Length.SHORT, seed=1)]
    long = [len(text.split()) for text in passages(100, Length.LONG, seed=1)]
    assert 12 <= sum(short) / len(short) <= 18
    assert max(short) >= 2 * min(short)
    assert 165 <= min(long) <= max(long) <= 190
