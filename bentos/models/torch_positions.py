"""How many tokens a model has positions for."""

from __future__ import annotations

from typing import Any

import torch


def stated_length(model: Any) -> int | None:
    """Longest input that the tokenizer and the weights of a model of sentence-transformers state, in tokens.

    Tokenizers that state none give an absurd number, and some the number of positions, not all of which are for tokens.
    """
    positions = getattr(model[0].model.config, "max_position_embeddings", None)
    if positions is not None:
        positions -= _first_position(model)
    stated = [length for length in (model.max_seq_length, positions) if length is not None]
    return min(stated, default=None)


def _first_position(model: torch.nn.Module) -> int:
    """RoBERTa and its kin count positions from past the padding's id."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return table.padding_idx + 1
    return 0
