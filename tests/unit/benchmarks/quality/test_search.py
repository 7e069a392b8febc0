"""Searching a collection by vector and reranking what was found, with services whose answers are known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.data.collection import Collection
from benchmarks.quality.__main__ import measure
from benchmarks.quality.report import to_json, to_markdown
from benchmarks.quality.search import search, work_of
from torchless.clients.embedding import InputType
from torchless.clients.reranking import Query


class NumberServices:
    """Texts are numbers: near are those whose angles are, and the best document is the one that equals the query."""

    name = "numbers"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def embed(self, texts: Sequence[str], kind: InputType) -> NDArray[np.float32]:
        # A question is seen a little off, so that its own document is the second nearest.
        angles = np.array([float(text) + (0.6 if kind is InputType.QUERY else 0) for text in texts]) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    async def rerank(self, queries: Sequence[Query]) -> list[NDArray[np.intp]]:
        # The first calls answer last.
        await asyncio.sleep(0.05 if queries[0].text == "0" else 0)
        return [
            np.argsort([abs(float(document) - float(query.text)) for document in query.documents], kind="stable")
            for query in queries
        ]

    async def models(self) -> str:
        return "numbers themselves"


NUMBERS = Collection("numbers", [str(number) for number in range(40)], [str(number) for number in range(40)])


async def test_documents_found_by_vector_are_reranked() -> None:
    progress: list[int] = []
    orders = await search(NumberServices(), NUMBERS, questions=20, top=3, done=progress.append)
    assert orders.by_vector[5].tolist() == [6, 5, 7]
    assert orders.reranked[5].tolist() == [5, 6, 7]
    assert orders.reranked[:, 0].tolist() == list(range(20))
    assert sum(progress) == work_of(NUMBERS, 20, 3)


async def test_a_measurement_compares_both_orders(tmp_path: Path) -> None:
    console = Console(file=(tmp_path / "said").open("w"))
    found = await measure(NumberServices(), NUMBERS, top=50, limit=100, console=console)
    console.file.close()
    assert (found.questions, found.documents, found.top, found.found) == (40, 40, 40, 1.0)
    # Second place for all but the last, whose neighbour above is not there.
    second = 1 / np.log2(3)
    assert found.by_vector == pytest.approx((39 * second + 1) / 40)
    assert found.reranked == 1.0
    assert (found.difference.better, found.difference.worse, found.difference.equal) == (39, 0, 1)
    assert found.difference.p_value < 1e-4
    assert "| questions better, worse, equal | 39, 0, 1 |" in to_markdown(found)
    assert b'"p_value"' in to_json(found)
