"""Docs, docstrings, comments and messages use the field's words."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
AVOIDED = {
    "whom?ever": "the caller, the client",
    "nobody": "no caller, no endpoint",
    "somebody": "a caller, a program",
    "anybody": "any caller",
    "everybody": "every caller, every client",
    "anew": "again",
    "beside": "next to, besides",
    "trials?": "half-open probe",
    "unwell": "unhealthy",
    "told apart": "distinguished",
    "(?:is|are|was|were|be) told": "gets, receives",
    "what becomes of": "the outcome of",
    "(?:hangs? up|hung up|hanging up)": "disconnects",
    "under way": "in flight, in progress",
    "(?:gives?|given|gave) back": "release, return",
    "look(?:s|ed)? at": "poll, check, read",
    "compartments?": "bulkhead",
    "rooms?": "capacity, memory, package",
    "as it is(?! \\w)": "unchanged",
    "of (?:its|their) own": "separate",
    "those that": "the noun: calls that, models that",
    "asked for": "requested",
}
"""Words that readers had to read twice, as regular expressions, and what to write instead."""
_WORDS = re.compile(rf"\b(?:{'|'.join(AVOIDED)})\b", re.IGNORECASE)
_OTHERS_TEXTS = ("tests/", "benchmarks/results/", "demo/passages")


def prose(path: Path) -> list[tuple[int, str]]:
    """The lines of `path` that people read, with their numbers: of Python, its strings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), start=1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    read = (token for token in tokens if token.type in {tokenize.STRING, tokenize.COMMENT})
    return [(token.start[0] + n, line) for token in read for n, line in enumerate(token.string.splitlines())]


def sources() -> list[str]:
    """The files of the repository whose texts are checked, generated code and other people's texts left out."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = (".py", ".md", ".yaml", ".toml", ".proto", "Makefile")
    return [
        name
        for name in tracked.splitlines()
        if name.endswith(wanted) and not name.startswith(_OTHERS_TEXTS) and "_pb2" not in name
    ]


def test_no_source_uses_an_avoided_word() -> None:
    found = [
        f"{name}:{number}: {match[0]!r}; write: {_instead(match[0])}"
        for name in sources()
        for number, line in prose(ROOT / name)
        for match in _WORDS.finditer(line)
    ]
    assert found == []


def _instead(word: str) -> str:
    return next(better for avoided, better in AVOIDED.items() if re.fullmatch(avoided, word, re.IGNORECASE))
