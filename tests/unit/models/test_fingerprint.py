"""Equal facts make an equal fingerprint, and nothing else does."""

from __future__ import annotations

import re

import pytest

from bentos.models import fingerprint as module
from bentos.models.fingerprint import fingerprint


def test_fingerprint_looks_like_a_commit_and_stays_the_same() -> None:
    named = fingerprint("w", dtype="float32", prompts={"a": "1", "b": "2"})
    assert re.fullmatch("[0-9a-f]{40}", named)
    assert named == fingerprint("w", prompts={"b": "2", "a": "1"}, dtype="float32")


@pytest.mark.parametrize(
    ("weights", "facts"),
    [
        ("x", {"dtype": "float32", "prompts": {"a": "1"}}),
        ("w", {"dtype": "float16", "prompts": {"a": "1"}}),
        ("w", {"dtype": "float32", "prompts": {"a": "2"}}),
        ("w", {"dtype": "float32", "prompts": {"b": "1"}}),
        ("w", {"dtype": "float32"}),
    ],
)
def test_each_fact_changes_the_fingerprint(weights: str, facts: dict[str, object]) -> None:
    assert fingerprint(weights, **facts) != fingerprint("w", dtype="float32", prompts={"a": "1"})


def test_code_version_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint("w")
    monkeypatch.setattr(module, "CODE_VERSION", module.CODE_VERSION + 1)
    assert fingerprint("w") != before
