"""The vocabulary that token ids of OpenAI's clients are read by."""

from __future__ import annotations

import hashlib

import pytest

from gateway.apis.openai.cl100k import vocabulary
from gateway.apis.openai.cl100k.pack import PUBLISHED_SHA256, pack, published_form
from gateway.apis.openai.cl100k.vocabulary import ORDINARY, SPECIAL
from torchless.contracts.errors import ErrorKind, TorchlessError


def test_the_table_is_the_published_one() -> None:
    tokens = vocabulary().tokens()
    assert len(tokens) == ORDINARY
    assert hashlib.sha256(published_form(tokens)).hexdigest() == PUBLISHED_SHA256


def test_packing_refuses_another_file() -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        pack(b"IQ== 0\n")


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([9906, 1917], "Hello world"),
        ([9906, 1917, 100_257], "Hello world<|endoftext|>"),
        ([100_255], " Conveyor"),
    ],
)
def test_ids_are_decoded_into_text(ids: list[int], text: str) -> None:
    assert vocabulary().decode(ids, ("input",)) == text


def test_bytes_that_are_not_a_character_are_replaced() -> None:
    lone_bytes = [index for index, token in enumerate(vocabulary().tokens()[:256]) if token[0] >= 0x80]
    assert len(lone_bytes) == 128
    assert vocabulary().decode(lone_bytes[:1], ("input",)) == "\ufffd"


@pytest.mark.parametrize("unknown", [100_256, *range(100_261, 100_276), 100_277, 2**32 - 1, -1])
def test_ids_outside_the_vocabulary_are_refused(unknown: int) -> None:
    with pytest.raises(TorchlessError) as raised:
        vocabulary().decode([1, unknown], ("input", 4))
    assert raised.value.kind is ErrorKind.INVALID_INPUT
    assert raised.value.violations[0].field == "input[4][1]"
    assert str(unknown) in raised.value.message


def test_special_tokens_are_outside_the_table() -> None:
    assert all(token_id >= ORDINARY for token_id in SPECIAL)
