"""How many tokens a model has positions for."""

from __future__ import annotations

from typing import Any

import torch


def stated_length(model: Any) -> int | None:
    """Longest input that the tokenizer and the weights of a model of sentence-transformers state, in tokens.

    Tokenizers that state none give an absurd number, and some the number of positions, not all of which are for tokens.
    """
    config = getattr(getattr(model[0], "model", None), "config", None)
    lengths = (model.max_seq_length, getattr(config, "max_position_embeddings", None), positions(model))
    return min((length for length in lengths if length is not None), default=None)


def positions(model: torch.nn.Module) -> int | None:
    """Tokens that a model with a learned vector for each position has one for; None: it has no such table.

    A longer input reads past the table, which on a GPU ends the device's service to the whole process.
    """
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding):
            # RoBERTa and its kin count from past the padding's id.
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return None
