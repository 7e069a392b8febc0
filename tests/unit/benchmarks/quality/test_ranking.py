"""Ranks and nDCG, on cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.quality.ranking import NOT_FOUND, ndcg, ranks


def test_ranks_count_from_one_and_mark_documents_not_found() -> None:
    found = np.array([[7, 1, 2], [1, 7, 2], [1, 2, 7], [1, 2, 3]])
    assert ranks(found, np.array([7, 7, 7, 7])).tolist() == [1, 2, 3, NOT_FOUND]


def test_ndcg_of_one_right_document_falls_with_the_logarithm_of_its_rank() -> None:
    places = np.array([1, 2, 3, 10, 11, NOT_FOUND])
    expected = [1, 1 / math.log2(3), 0.5, 1 / math.log2(11), 0, 0]
    assert ndcg(places, 10) == pytest.approx(expected)
