"""The examples in docs/clients.md run, and its versions are the installed ones."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.metadata import version

import pytest
from _pytest.mark import ParameterSet

from tests.running_stack import ROOT

PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)
IN_THE_PAGE = "http://127.0.0.1:3000"
DISTRIBUTIONS = {
    "llama-index, OpenAI": "llama-index-embeddings-openai",
    "llama-index, TEI": "llama-index-embeddings-text-embeddings-inference",
    "llama-index, Cohere rerank": "llama-index-postprocessor-cohere-rerank",
    "llama-index, Jina rerank": "llama-index-postprocessor-jinaai-rerank",
    "llama-index, TEI rerank": "llama-index-postprocessor-tei-rerank",
    "haystack, OpenAI": "haystack-ai",
    "haystack, Hugging Face API": "huggingface-api-haystack",
    "haystack, Cohere": "cohere-haystack",
    "haystack, Jina": "jina-haystack",
}
"""Where the page's name of a client is not that of its package."""


def examples() -> list[ParameterSet]:
    found = []
    for match in EXAMPLE.finditer(PAGE):
        line = PAGE.count("\n", 0, match.start()) + 2
        found.append(pytest.param(match["code"], match["output"], line, id=f"line {line}"))
    return found


@pytest.mark.parametrize(("code", "output", "line"), examples())
def test_an_example_prints_what_the_page_shows(code: str, output: str, line: int, url: str) -> None:
    assert IN_THE_PAGE in code
    program = compile("\n" * (line - 1) + code.replace(IN_THE_PAGE, url), "docs/clients.md", "exec")
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(program, {"__name__": "__main__"})

    assert printed.getvalue() == output


def test_every_python_block_is_such_an_example() -> None:
    assert len(examples()) == PAGE.count("```python") > 0


def test_versions_are_those_that_are_tested() -> None:
    rows = re.findall(r"^\| (\S[^|]*) \| (\d[\w.]*) \|", PAGE, re.MULTILINE)

    assert len(rows) >= 10
    assert dict(rows) == {name: version(DISTRIBUTIONS.get(name, name)) for name, _ in rows}
