"""Passages: generated from word lists, always the same for a seed, or cut out of longer texts."""

from __future__ import annotations

import re
from random import Random

from benchmarks.plan import Length

_SUBJECTS = (
    "The night nurse", "A tired courier", "The harbour pilot", "Our new archivist", "The bridge inspector",
    "A young geologist", "The village baker", "An old watchmaker", "The duty engineer", "A visiting surgeon",
    "The pump operator", "My neighbour",
)  # fmt: skip
_VERBS = (
    "checked", "moved", "described", "repaired", "measured", "forgot", "labelled", "compared", "returned", "counted",
    "sold", "recorded",
)  # fmt: skip
_OBJECTS = (
    "the spare valves", "a box of letters", "three water samples", "the broken clock", "every patient chart",
    "a map of the coast", "the morning delivery", "two cracked beams", "the sensor readings", "a list of names",
    "the winter stock", "an empty crate",
)  # fmt: skip
_CLAUSES = (
    "before the storm", "near the east gate", "without any help", "in the cold store", "after the second alarm",
    "for the auditor", "under a bright lamp", "as the tide went out", "because the label was wrong",
    "while the ward was quiet", "on a paper form", "with a borrowed scale", "at half past six",
    "along the river road", "from the upper shelf", "despite the long delay",
)  # fmt: skip


_WORDS = {Length.SHORT: (6, 19), Length.LONG: (168, 178)}


def passages(count: int, length: Length, seed: int) -> list[str]:
    """`count` passages, with lengths distributed evenly over the range of `length`."""
    draw = Random(f"{length}-{seed}")  # noqa: S311  # not a secret
    return [_passage(draw, draw.randint(*_WORDS[length])) for _ in range(count)]


_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_FEWEST_WORDS = 12


def of_sentences(text: str) -> list[str]:
    """Splits a text into passages of one sentence, or of several short ones; a short rest is dropped."""
    found: list[str] = []
    words: list[str] = []
    for sentence in _SENTENCE_ENDS.split(text):
        words += sentence.split()
        if len(words) >= _FEWEST_WORDS:
            found.append(" ".join(words))
            words = []
    return found


def _passage(draw: Random, words: int) -> str:
    sentences = [_sentence(draw)]
    while sum(len(sentence) for sentence in sentences) < words:
        if draw.random() < 0.6:
            sentences[-1] += draw.choice(_CLAUSES).split()
        else:
            sentences.append(_sentence(draw))
    return " ".join(" ".join(sentence) + "." for sentence in sentences)


def _sentence(draw: Random) -> list[str]:
    return " ".join((draw.choice(_SUBJECTS), draw.choice(_VERBS), draw.choice(_OBJECTS))).split()
