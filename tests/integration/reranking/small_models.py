"""Small cross-encoders with random weights, saved like any model."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    CanineConfig,
    CanineForSequenceClassification,
    CanineTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

LONGEST = 32
"""Tokens that each of them reads at most."""
LETTERS = string.ascii_lowercase
"""Each is a word and a token; words of several letters have a token a letter."""

Family = Literal["bert", "roberta", "llama"]

# Weights so large that scores spread, as a trained model's do.
_SIZE: Any = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_ROBERTA = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
_VOCABULARY = 4 + 2 * len(LETTERS) + 2


def save_cross_encoder(
    folder: Path,
    family: Family = "bert",
    *,
    labels: int = 1,
    activation: str = "",
    padding_side: str = "right",
    stated_length: int | None = LONGEST,
) -> str:
    """Saves a sequence classifier and its tokenizer to `folder`, and returns it.

    Args:
        folder: Where to.
        family: BERT gets the text of each token. RoBERTa does not, and counts positions from its padding's id.
            Llama takes its last token that is not padding, on whichever side that is.
        labels: How many scores it gives.
        activation: Import path of the activation over its logit; empty: it names none.
        padding_side: As its tokenizer has it.
        stated_length: Longest input as its tokenizer states it; None: it states none.
    """
    torch.manual_seed(3)
    fast_tokenizer(family, padding_side, stated_length).save_pretrained(folder)
    extra: Any = {"sentence_transformers": {"activation_fn": activation, "version": "4.0.1"}} if activation else {}
    shared: Any = {"vocab_size": _VOCABULARY, "num_labels": labels, **_SIZE, **extra}
    if family == "bert":
        BertForSequenceClassification(BertConfig(max_position_embeddings=LONGEST, **shared)).save_pretrained(folder)
    elif family == "llama":
        numbers: Any = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        config = LlamaConfig(max_position_embeddings=LONGEST, **shared, **numbers)
        classifier: Any = LlamaForSequenceClassification
        classifier(config).save_pretrained(folder)
    else:
        ids: Any = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        RobertaForSequenceClassification(
            RobertaConfig(max_position_embeddings=LONGEST + 2, type_vocab_size=1, **ids, **shared)
        ).save_pretrained(folder)
    return str(folder)


def save_language_model(folder: Path) -> str:
    """Saves a language model that could be asked to answer yes or no."""
    fast_tokenizer("bert", "right", LONGEST).save_pretrained(folder)
    ids: Any = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    LlamaForCausalLM(LlamaConfig(vocab_size=_VOCABULARY, **_SIZE, **ids)).save_pretrained(folder)
    return str(folder)


def save_encoder(folder: Path) -> str:
    """Saves an encoder without a classifier, as embedding models are."""
    torch.manual_seed(3)
    fast_tokenizer("bert", "right", LONGEST).save_pretrained(folder)
    BertModel(BertConfig(vocab_size=_VOCABULARY, max_position_embeddings=LONGEST, **_SIZE)).save_pretrained(folder)
    return str(folder)


def save_without_fast_tokenizer(folder: Path) -> str:
    """Saves a classifier over characters, whose tokenizer is Python alone."""
    CanineTokenizer(model_max_length=LONGEST).save_pretrained(folder)  # type: ignore[no-untyped-call]
    size: Any = {"num_hidden_layers": 1, "local_transformer_stride": 8, "downsampling_rate": 2, "num_hash_buckets": 64}
    config = CanineConfig(max_position_embeddings=LONGEST, **{**_SIZE, **size, "num_labels": 1})
    CanineForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def fast_tokenizer(family: Family, padding_side: str, stated_length: int | None) -> PreTrainedTokenizerFast:
    """WordPiece over letters, with pairs joined as the family has it."""
    names: Any = _ROBERTA if family == "roberta" else _BERT
    vocabulary = {token: number for number, token in enumerate(names.values())}
    for piece in [*LETTERS, *(f"##{letter}" for letter in LETTERS), "yes", "no"]:
        vocabulary[piece] = len(vocabulary)
    pieces = Tokenizer(WordPiece(vocabulary, unk_token=names["unk_token"]))
    pieces.normalizer = normalizers.Lowercase()
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    start, end = names["cls_token"], names["sep_token"]
    pieces.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}" if family == "roberta" else f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    kept = ["input_ids", "attention_mask"] + (["token_type_ids"] if family == "bert" else [])
    length = {} if stated_length is None else {"model_max_length": stated_length}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pieces, padding_side=padding_side, model_input_names=kept, **length, **names
    )
