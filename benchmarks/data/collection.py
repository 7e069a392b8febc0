"""Collections for known-item retrieval: questions, each with the one document that answers it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paths import ROOT

COLLECTION = ROOT.parent / "shared/data/pubmedqa"
"""Default folder of PubMedQA, next to the checkout."""
_FILE = "ori_pqal.json"
_HINT = (
    "Pass a folder with this file as --collection, or run `make quality COLLECTION=folder`. The file must be an object "
    "with an entry for each question: QUESTION, a text, and CONTEXTS, the texts of the right document"
)


class NoCollectionError(Exception):
    """The collection is missing or malformed; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Questions and documents: document i is the right one for question i."""

    name: str
    """Name of the folder."""
    questions: list[str]
    """The questions."""
    documents: list[str]
    """As many documents as questions."""


def read_collection(folder: Path) -> Collection:
    """Reads `ori_pqal.json` of PubMedQA: for each id an object with `QUESTION` and `CONTEXTS`.

    The contexts are the sections of an abstract without its conclusion; they are joined by spaces to one document.

    Raises:
        NoCollectionError: The file is missing or has no question, or an entry lacks a field.
    """
    file = folder / _FILE
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoCollectionError(f"{file} cannot be read: {error.strerror}. {_HINT}") from error
    except ValueError as error:
        raise NoCollectionError(f"{file} is not JSON: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise NoCollectionError(f"{file} must be an object with one entry for each question")
    questions, documents = [], []
    for identifier, entry in entries.items():
        question, contexts = _fields(entry, f"{file}, entry {identifier}")
        questions.append(question)
        documents.append(" ".join(contexts))
    return Collection(folder.resolve().name, questions, documents)


def _fields(entry: object, where: str) -> tuple[str, list[str]]:
    match entry:
        case {"QUESTION": str(question), "CONTEXTS": [*contexts]} if question and any(contexts):
            if all(isinstance(context, str) for context in contexts):
                return question, contexts
    raise NoCollectionError(f"{where}: must have QUESTION, a text, and CONTEXTS, a list of texts")
