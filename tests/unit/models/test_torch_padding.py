"""Batches are padded as the model's tokenizer would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bentos.models.torch_padding import Padder

pytestmark = pytest.mark.torch


def padder(side: str = "right", pad: int | None = 9, *, types: bool = True) -> Padder:
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if types else [])
    tokenizer: Any = SimpleNamespace(pad_token_id=pad, padding_side=side, model_input_names=names)
    return Padder(tokenizer, torch.device("cpu"))


def test_padding_on_the_right() -> None:
    made = padder().batch([[1, 2, 3], [4]], [[0, 1, 1], [1]])
    assert made["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert made["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert {tensor.dtype for tensor in made.values() if isinstance(tensor, torch.Tensor)} == {torch.int64}


def test_padding_on_the_left() -> None:
    subject = padder("left")
    made = subject.batch([[1, 2, 3], [4]], [[0, 1, 1], [1]])
    assert made["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert made["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert [made["input_ids"][1, subject.columns(1, 3)].tolist()] == [[4]]


def test_single_texts_have_type_id_zero() -> None:
    assert padder().batch([[1, 2], [3]])["token_type_ids"].tolist() == [[0, 0], [0, 0]]


def test_model_without_type_ids_gets_none() -> None:
    assert "token_type_ids" not in padder(types=False).batch([[1]], [[1]])


def test_tokenizer_without_a_padding_token_pads_with_zero() -> None:
    assert padder(pad=None).batch([[1, 2], [3]])["input_ids"].tolist() == [[1, 2], [3, 0]]
