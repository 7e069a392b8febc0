"""Every vector that leaves the gateway is the one that the model called directly gives."""

from __future__ import annotations

import base64
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.running_stack import BENTOS_PYTHON, ROOT, RunningStack

pytestmark = pytest.mark.slow
TEXTS = [
    "A cell divides.",
    "a",
    " ",
    "?!...",
    "The harbour froze early that year, and the ferries stayed in port. " * 12,
    "The harbour froze early that year, and the ferries stayed in port. " * 60,
    "abc" * 2000,
    "Größe, œuvre, ёлка, 東京の春, שלום, 👩‍🔬🧪 e\u0301",
    "a\x00b\x07c\u200bd",
    *(f"Passage {n} speaks of {word}." for n, word in enumerate(["tides", "ovens", "glaciers", "looms"] * 8)),
]


@pytest.fixture(scope="module")
def wanted() -> NDArray[np.float32]:
    command = [str(BENTOS_PYTHON), "-W", "ignore", "-m", "tests.e2e.direct"]
    made = subprocess.run(
        command, input=json.dumps(TEXTS), capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr
    return np.array(json.loads(made.stdout), dtype=np.float32)


def post(stack: RunningStack, path: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(f"{stack.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def openai(stack: RunningStack, texts: list[str], **more: str) -> list[Any]:
    return [row["embedding"] for row in post(stack, "/v1/embeddings", {"input": texts, **more})["data"]]


def worst_cosine(got: object, wanted: NDArray[np.float32]) -> float:
    vectors = np.asarray(got, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((vectors * wanted).sum(axis=1) / lengths).min())


def test_vectors_of_one_request_equal_the_models(running: RunningStack, wanted: NDArray[np.float32]) -> None:
    assert worst_cosine(openai(running, TEXTS), wanted) >= 0.99999


def test_vector_of_a_text_alone_equals_the_models(running: RunningStack, wanted: NDArray[np.float32]) -> None:
    assert worst_cosine([openai(running, [text])[0] for text in TEXTS], wanted) >= 0.99999


def test_vector_of_a_text_in_a_batch_equals_the_models(running: RunningStack, wanted: NDArray[np.float32]) -> None:
    with ThreadPoolExecutor(24) as callers:
        got = list(callers.map(lambda text: openai(running, [text])[0], TEXTS * 4))
    assert worst_cosine(got, np.tile(wanted, (4, 1))) >= 0.99999


def test_base64_holds_the_same_numbers(running: RunningStack) -> None:
    floats = np.array(openai(running, TEXTS[:3]), dtype="<f4")
    encoded = openai(running, TEXTS[:3], encoding_format="base64")
    np.testing.assert_allclose(
        np.stack([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in encoded]), floats, atol=1e-6
    )


def test_the_other_families_answer_the_same(running: RunningStack, wanted: NDArray[np.float32]) -> None:
    tei = post(running, "/embed", {"inputs": TEXTS, "truncate": True})
    cohere = post(running, "/v2/embed", {"texts": TEXTS, "input_type": "search_document", "embedding_types": ["float"]})
    assert worst_cosine(tei, wanted) >= 0.99999
    assert worst_cosine(cohere["embeddings"]["float"], wanted) >= 0.99999
