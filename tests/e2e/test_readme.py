"""The README's examples, run unchanged except for the ports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.running_stack import ROOT, RunningStack
from torchless.cli.bentos import BENTOS

pytestmark = pytest.mark.slow
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def run(program: list[str], code: str, stack: RunningStack) -> str:
    code = code.replace("http://127.0.0.1:3000", stack.url)
    for bento in BENTOS:
        code = code.replace(f"127.0.0.1:{bento.port}", stack.addresses[bento.name])
    done = subprocess.run([*program, code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [block for block in blocks("bash") if "curl" in block])
def test_curl_example_answers(code: str, running: RunningStack) -> None:
    require_program("curl", "curl")
    answer = json.loads(run(["bash", "-c"], code, running))
    if "/embeddings" in code:
        assert [len(row["embedding"]) for row in answer["data"]] == [384, 384]
    elif "/v2/embed" in code:
        assert {name: len(rows[0]) for name, rows in answer["embeddings"].items()} == {"float": 384, "int8": 384}
    elif "/v1/rerank" in code or "/v2/rerank" in code:
        assert [result["index"] for result in answer["results"]] == [1]
    elif "/rerank" in code:
        assert [result["index"] for result in answer] == [1, 0]
    elif "/score" in code:
        assert answer["data"][1]["score"] > answer["data"][0]["score"]
    elif "/v1/gpu/status" in code:
        assert answer["available"] or answer["unavailable_reason"]
    else:
        assert [len(row) for row in answer] == [384]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_example_prints_its_results(code: str, running: RunningStack) -> None:
    embedded, reranked = run([sys.executable, "-c"], code, running).splitlines()
    assert embedded.startswith("Yeast makes dough rise. (2, 384)")
    assert reranked == "Yeast makes dough rise."


@pytest.mark.parametrize("code", [block for block in blocks("bash") if "torchless" in block])
def test_command_line_example_prints_its_results(code: str, running: RunningStack) -> None:
    code = code.replace(".venv/gateway/bin/torchless", f"{sys.executable} -m torchless.cli")
    printed = run(["bash", "-c"], f"export TORCHLESS_GATEWAY_URL={running.url}\n{code}", running)
    assert "384" in printed
    assert printed.index("Yeast makes dough rise.") < printed.rindex("The harbour froze.")
    assert all(service in printed for service in ("embedding", "reranking", "gpu"))


def test_every_code_block_is_run() -> None:
    languages = re.findall(r"^```(\w+)$", README, flags=re.MULTILINE)
    assert sorted(set(languages)) == ["bash", "python"]
    assert all("curl" in block or "torchless" in block for block in blocks("bash"))


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"\bmake (\w+)", README))
    known = set(re.findall(r"^([a-z]+):", Path(ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "up"} <= targets <= known
