"""The longest input that a model's tokenizer and weights support."""

from __future__ import annotations

from typing import Any

import torch


def stated_length(model: Any) -> int | None:
    """Longest input of a sentence-transformers model according to its tokenizer and weights, in tokens.

    Tokenizers without a limit give a huge number. Some give the number of positions, not all of which are for tokens.
    """
    config = getattr(getattr(model[0], "model", None), "config", None)
    lengths = (model.max_seq_length, getattr(config, "max_position_embeddings", None), positions(model))
    return min((length for length in lengths if length is not None), default=None)


def positions(model: torch.nn.Module) -> int | None:
    """Number of tokens that a model's learned position embeddings cover; None: it has none.

    A longer input would read past the table, which makes a GPU unusable for the whole process.
    """
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding):
            # RoBERTa and similar models number positions from the id after padding.
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return None
