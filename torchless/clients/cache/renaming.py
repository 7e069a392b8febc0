"""Errors about a part of a request, in words of the whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchless.contracts.errors import FieldViolation, TorchlessError

_INPUT = re.compile(r"\b(texts|token_ids)\[(\d+)\]")


def renumbered(error: TorchlessError, indices: Sequence[int]) -> TorchlessError:
    """`error` about some inputs of a request, with their places in the whole request.

    Args:
        error: What the service said about the inputs that it was sent.
        indices: Place in the whole request of each of them.
    """

    def place(number: str) -> str:
        index = int(number)
        return str(indices[index]) if index < len(indices) else number

    def renamed(text: str) -> str:
        return _INPUT.sub(lambda found: f"{found[1]}[{place(found[2])}]", text)

    message, violations = error.message, []
    for each in error.violations:
        field = renamed(each.field)
        # A message may quote the caller; only what names a field at fault is renamed.
        violations.append(FieldViolation(field, each.description))
    if any(_INPUT.match(each.field) for each in error.violations):
        named = {each.field: new.field for each, new in zip(error.violations, violations, strict=True)}
        message = re.sub("|".join(map(re.escape, named)), lambda found: named[found[0]], message)
    metadata = dict(error.metadata)
    if metadata.get("index", "").isdecimal():
        metadata["index"] = place(metadata["index"])
    return TorchlessError(
        error.kind, message, violations=tuple(violations), retry_after_s=error.retry_after_s, metadata=metadata
    )
