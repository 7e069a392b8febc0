"""Errors about a part of a request, with the field paths of the whole request."""

from __future__ import annotations

from collections.abc import Sequence

from torchless.contracts.errors import TorchlessError
from torchless.contracts.field_path import FieldPath


def renumbered(error: TorchlessError, indices: Sequence[int]) -> TorchlessError:
    """`error` about some inputs of a request, with their indices in the whole request.

    Args:
        error: What the service answered about the inputs that it received.
        indices: Index in the whole request of each of them.
    """

    def index_in_whole(index: int) -> int:
        return indices[index] if index < len(indices) else index

    def rename(path: FieldPath) -> FieldPath:
        match path:
            case ("texts" | "token_ids" as name, int(index), *rest):
                return (name, index_in_whole(index), *rest)
        return path

    renamed = error.with_paths(rename)
    if renamed.metadata.get("index", "").isdecimal():
        renamed.metadata["index"] = str(index_in_whole(int(renamed.metadata["index"])))
    return renamed
