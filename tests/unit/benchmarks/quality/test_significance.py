"""The randomisation test and the bootstrap interval, on cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.quality.significance import bootstrap_interval, compare, randomisation_p_value


def test_few_differences_are_tested_exactly() -> None:
    # Of the 8 ways to give three equal differences signs, 2 are as far from 0 as all of one sign.
    assert randomisation_p_value(np.array([1.0, 1.0, 1.0])) == 0.25
    # Sums of +-3 +-1: -4, -2, 2, 4. All are at least as far as 2, half as far as 4.
    assert randomisation_p_value(np.array([3.0, -1.0])) == 1.0
    assert randomisation_p_value(np.array([3.0, 1.0])) == 0.5


def test_questions_without_a_difference_do_not_change_the_p_value() -> None:
    some = np.array([0.5, 0.25, -0.25, 1.0])
    assert randomisation_p_value(np.concatenate([some, np.zeros(500)])) == randomisation_p_value(some)
    assert randomisation_p_value(np.zeros(10)) == 1.0


def test_many_differences_are_drawn_and_agree_with_the_sign_test() -> None:
    # 30 equal differences, 21 of one sign: exactly the two-sided sign test.
    differences = np.array([1.0] * 21 + [-1.0] * 9)
    exact = 2 * sum(math.comb(30, k) for k in range(21, 31)) / 2**30
    assert randomisation_p_value(differences) == pytest.approx(exact, abs=0.003)
    assert randomisation_p_value(differences) == randomisation_p_value(differences)
    assert randomisation_p_value(-differences) == pytest.approx(exact, abs=0.003)


def test_a_drawn_p_value_is_never_zero() -> None:
    assert randomisation_p_value(np.ones(200), draws=999) == 1 / 1000


def test_the_interval_is_the_binomial_one_for_differences_of_zero_and_one() -> None:
    low, high = bootstrap_interval(np.array([1.0] * 50 + [0.0] * 50))
    # Quantiles 0.025 and 0.975 of the binomial of 100 draws at 0.5 are 40 and 60.
    assert (low, high) == (0.40, 0.60)
    assert bootstrap_interval(np.full(7, 0.125)) == (0.125, 0.125)


def test_a_comparison_counts_questions_and_subtracts_the_first_from_the_second() -> None:
    found = compare(np.array([1.0, 0.5, 0.5, 1.0]), np.array([1.0, 1.0, 1.0, 0.75]))
    assert (found.better, found.worse, found.equal) == (2, 1, 1)
    assert found.mean == pytest.approx(0.1875)
    # Sums of +-2 +-2 +-1 quarters that are at least 3 away from 0: +-5 and +-3, of 8.
    assert found.p_value == 0.5
    assert -0.25 <= found.low <= found.mean <= found.high <= 0.5
