"""Collections for known-item retrieval: questions, each with the one document that answers it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paths import ROOT

COLLECTION = ROOT.parent / "shared/data/pubmedqa"
"""Where PubMedQA stands beside a checkout, if it does."""
_FILE = "ori_pqal.json"
_HINT = (
    "Give a folder that has one with --collection, or `make quality COLLECTION=folder`: an object that holds for each "
    "question an entry with QUESTION, a text, and CONTEXTS, the texts of the document that it should find"
)


class NoCollectionError(Exception):
    """There is no collection of the form that is read; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Questions and documents: question i should find document i among all."""

    name: str
    """Name of its folder."""
    questions: list[str]
    """The questions."""
    documents: list[str]
    """As many documents."""


def read_collection(folder: Path) -> Collection:
    """Reads `ori_pqal.json`, the form of PubMedQA: for each id an object with `QUESTION` and `CONTEXTS`.

    The contexts, which are the sections of an abstract without its conclusion, are joined by a space to one document.

    Raises:
        NoCollectionError: The file is not there, holds no question, or an entry lacks a field.
    """
    file = folder / _FILE
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoCollectionError(f"{file} cannot be read: {error.strerror}. {_HINT}") from error
    except ValueError as error:
        raise NoCollectionError(f"{file} is not JSON: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise NoCollectionError(f"{file} must hold an object with one entry a question")
    questions, documents = [], []
    for identifier, entry in entries.items():
        question, contexts = _fields(entry, f"{file}, entry {identifier}")
        questions.append(question)
        documents.append(" ".join(contexts))
    return Collection(folder.resolve().name, questions, documents)


def _fields(entry: object, place: str) -> tuple[str, list[str]]:
    match entry:
        case {"QUESTION": str(question), "CONTEXTS": [*contexts]} if question and any(contexts):
            if all(isinstance(context, str) for context in contexts):
                return question, contexts
    raise NoCollectionError(f"{place}: must have QUESTION, a text, and CONTEXTS, a list of texts")
