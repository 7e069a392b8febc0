"""Pads the token ids of several inputs into one batch on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class Padder:
    """Pads as the model's tokenizer would.

    Args:
        tokenizer: The model's tokenizer, from transformers.
        device: Device of the batches.
    """

    def __init__(self, tokenizer: Any, device: torch.device) -> None:
        self._device = device
        self._pad_id: int = tokenizer.pad_token_id or 0
        self._pads_left: bool = tokenizer.padding_side == "left"
        self._wants_type_ids = "token_type_ids" in tokenizer.model_input_names

    def batch(self, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]] | None = None) -> dict[str, Any]:
        """Features for the modules of sentence-transformers: int64 tensors of shape (inputs, longest).

        Args:
            ids: Token ids of each input, special tokens included.
            type_ids: For each token, which of two joined texts it belongs to; None: all to the first.
        """
        longest = max(map(len, ids))
        features: dict[str, Any] = {
            "input_ids": self._padded(ids, longest, self._pad_id),
            "attention_mask": self._padded([[1] * len(one) for one in ids], longest, 0),
            "modality": "text",
        }
        if self._wants_type_ids:
            given = type_ids is not None and self._padded(type_ids, longest, 0)
            features["token_type_ids"] = torch.zeros_like(features["input_ids"]) if given is False else given
        return features

    def columns(self, length: int, longest: int) -> slice:
        """Columns of an input of `length` tokens in a row of `longest`."""
        return slice(longest - length, longest) if self._pads_left else slice(0, length)

    def _padded(self, rows: Sequence[Sequence[int]], longest: int, filler: int) -> torch.Tensor:
        padded = np.full((len(rows), longest), filler, dtype=np.int64)
        for number, row in enumerate(rows):
            padded[number, self.columns(len(row), longest)] = row
        return torch.from_numpy(padded).to(self._device, non_blocking=True)
