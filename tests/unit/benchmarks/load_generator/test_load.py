"""The load generator: when its window opens, and the bodies that it sends and reads over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from benchmarks.data.inputs import Request
from benchmarks.load_generator.apis import api_named
from benchmarks.load_generator.drive import drive
from benchmarks.measurement.differences import largest_difference, least_cosine

ASKED = Request(["first", "second"], query="which?")


class OneAtATime:
    """A service that works on one request at a time, each for 20 ms."""

    def __init__(self) -> None:
        self._device = asyncio.Lock()
        self.sent: list[tuple[int, int]] = []

    async def send(self, connection: int, number: int) -> None:
        self.sent.append((connection, number))
        async with self._device:
            await asyncio.sleep(0.02)


async def test_the_window_opens_when_every_first_request_is_answered() -> None:
    sender = OneAtATime()
    spans = await drive(sender, in_flight=8, warm_up_s=0.0, seconds=0.2)
    # The last of the 8 that were sent at once is answered as the window opens.
    assert sum(done <= 0 for _, done in spans) == 8
    assert max(sent for sent, _ in spans) < 0.2
    assert sorted(number for _, number in sender.sent) == list(range(len(spans)))


async def test_the_window_does_not_open_before_the_warm_up_is_over() -> None:
    spans = await drive(OneAtATime(), in_flight=1, warm_up_s=0.1, seconds=0.05)
    assert min(sent for sent, _ in spans) <= -0.09


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("documents", {"results": [{"index": 1, "relevance_score": 3.5}, {"index": 0, "relevance_score": -1.0}]}),
        ("texts", [{"index": 1, "score": 3.5}, {"index": 0, "score": -1.0}]),
    ],
)
def test_scores_are_raw_and_in_the_order_of_the_documents(name: str, answer: Any) -> None:
    api = api_named(name)
    body = api.body(ASKED, "a model")
    assert (body["query"], body[name], body["raw_scores"]) == ("which?", ["first", "second"], True)
    assert api.read(answer).tolist() == [[-1.0], [3.5]]


@pytest.mark.parametrize(("name", "embedding"), [("float", [1.0, -2.0]), ("base64", "AACAPwAAAMA=")])
def test_vectors_are_read_in_both_encodings(name: str, embedding: Any) -> None:
    api = api_named(name)
    assert api.body(ASKED, "a model") == {"input": ASKED.texts, "model": "a model", "encoding_format": name}
    assert api.read({"data": [{"embedding": embedding}]}).tolist() == [[1.0, -2.0]]


def test_answers_are_compared_with_those_of_the_direct_call() -> None:
    reference = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert least_cosine(3 * reference, reference) == 1.0
    assert least_cosine(np.array([[1, 0], [1, 1]], dtype=np.float32), reference) == pytest.approx(2**-0.5)
    assert largest_difference(np.array([[0.5, -1.0]], dtype=np.float32), reference) == 2.0
