"""The fingerprint of what a bento serves: the revision that it reports to its callers."""

from __future__ import annotations

import hashlib
import json
from typing import Final

CODE_VERSION: Final = 1
"""Increase it when a change of the bentos' code gives other vectors or scores for the same model and settings."""
_LENGTH = 40
"""Hexadecimal digits, as many as a commit has."""


def fingerprint(weights: str, **facts: object) -> str:
    """Names everything that decides an answer, so that equal fingerprints mean interchangeable answers.

    The device, the batching and the versions of libraries are left out: they change a result by rounding only.
    docs/decisions/0018 has the reasons.

    Args:
        weights: Version of the model's files, from `Weights.version`.
        facts: The settings that change results, as they are in force; values that JSON can hold.
    """
    text = json.dumps({"code": CODE_VERSION, "weights": weights, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
