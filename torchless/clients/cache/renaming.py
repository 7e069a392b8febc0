"""Errors about a part of a request, in words of the whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchless.contracts.errors import FieldViolation, TorchlessError

_INPUT = re.compile(r"(texts|token_ids)\[(\d+)\]")


def renumbered(error: TorchlessError, indices: Sequence[int]) -> TorchlessError:
    """`error` about some inputs of a request, with their places in the whole request.

    Args:
        error: What the service said about the inputs that it was sent.
        indices: Place in the whole request of each of them.
    """

    def place(number: str) -> str:
        index = int(number)
        return str(indices[index]) if index < len(indices) else number

    def renamed(field: str) -> str:
        return _INPUT.sub(lambda found: f"{found[1]}[{place(found[2])}]", field, count=1)

    # A message may quote the caller: in it only the names of fields at fault are replaced, the longer ones first.
    named = {each.field: renamed(each.field) for each in error.violations if _INPUT.match(each.field)}
    message = error.message
    if named:
        names = sorted(named, key=len, reverse=True)
        message = re.sub("|".join(map(re.escape, names)), lambda found: named[found[0]], message)
    violations = tuple(FieldViolation(named.get(each.field, each.field), each.description) for each in error.violations)
    metadata = dict(error.metadata)
    if metadata.get("index", "").isdecimal():
        metadata["index"] = place(metadata["index"])
    return TorchlessError(
        error.kind, message, violations=violations, retry_after_s=error.retry_after_s, metadata=metadata
    )
