"""Truncation and windows with small tokenizers; needs `tokenizers`, which only the bentos' environment has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bentos.models.long_text import LongTexts
from bentos.reranking.tokenization import TruncatingTokenizer
from tests.integration.reranking.small_models import LETTERS, fast_tokenizer
from torchless.settings import SettingsError

pytestmark = pytest.mark.torch


def of_bytes(*, normalizer: normalizers.Normalizer | None = None, max_tokens: int = 16) -> TruncatingTokenizer:
    """A token a byte, so that a character may be several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        made.normalizer = normalizer
    return TruncatingTokenizer(made.to_str(), max_tokens, 2, pairs=False)


def of_letters(max_tokens: int = 16, overlap: int = 2, *, pairs: bool = True) -> TruncatingTokenizer:
    serialized = fast_tokenizer("bert", "right", 32).backend_tokenizer.to_str()
    return TruncatingTokenizer(serialized, max_tokens, overlap, pairs=pairs)


@pytest.mark.parametrize(
    ("tokens", "start", "end"),
    [
        (9, "é😀abc", "é😀abc"),
        (8, "é😀ab", "😀abc"),
        (7, "é😀a", "😀abc"),
        (6, "é😀", "abc"),
        (5, "é", "abc"),
        (2, "é", "bc"),
        (1, "", "c"),
    ],
)
def test_text_is_cut_between_characters_within_the_limit(tokens: int, start: str, end: str) -> None:
    tokenizer = of_bytes()
    assert tokenizer.shorten(["é😀abc"], tokens) == [start]
    assert tokenizer.shorten(["é😀abc"], tokens, keep_end=True) == [end]


@given(st.lists(st.text(max_size=20), max_size=4), st.integers(1, 30), st.booleans())
def test_shortened_text_is_a_part_of_the_text_within_the_token_limit(
    texts: list[str], tokens: int, keep_end: bool
) -> None:
    tokenizer = BYTES
    for text, cut in zip(texts, tokenizer.shorten(texts, tokens, keep_end=keep_end), strict=True):
        assert text.endswith(cut) if keep_end else text.startswith(cut)
        assert len(cut.encode()) <= tokens
        assert cut == text or len(cut.encode()) > tokens - 4


BYTES = of_bytes()


@pytest.mark.parametrize("keep_end", [False, True])
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_long_text_is_shortened_as_if_it_were_tokenized_whole(tokens: int, keep_end: bool) -> None:
    texts = [
        " ".join(LETTERS * 500),
        LETTERS * 900,  # one word, more than WordPiece reads
        "a" + " " * 9_000 + "b " * 900,
        "a " + "é" * 5_000 + " b" * 3_000,
        "?" * 20_000,
    ]
    tokenizer = of_letters()
    whole = [tokenizer._whole.encode(text, add_special_tokens=False) for text in texts]
    for text, encoding, cut in zip(texts, whole, tokenizer.shorten(texts, tokens, keep_end=keep_end), strict=True):
        ids = tokenizer._whole.encode(cut, add_special_tokens=False).ids
        assert ids == (encoding.ids[-tokens:] if keep_end else encoding.ids[:tokens]), text[:20]


def test_only_the_needed_part_of_a_long_text_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = of_letters()
    seen: list[int] = []
    plain, decides = TruncatingTokenizer._plain, LongTexts._decides

    def counted(self: TruncatingTokenizer, texts: Sequence[str]) -> Any:
        seen.extend(map(len, texts))
        return plain(self, texts)

    def also_counted(self: LongTexts, part: str, *more: Any) -> bool:
        seen.append(len(part))
        return decides(self, part, *more)

    monkeypatch.setattr(TruncatingTokenizer, "_plain", counted)
    monkeypatch.setattr(LongTexts, "_decides", also_counted)
    tokenizer.shorten([". " * 500_000, "short"], 50)
    assert max(seen) < 5_000


def test_text_of_exactly_the_limit_is_unchanged() -> None:
    tokenizer = of_letters()
    text = " ".join(LETTERS[:10])
    assert tokenizer.shorten([text, text, "z"], 10) == [text, text, "z"]
    assert tokenizer.shorten([text], 9) == [" ".join(LETTERS[:9])]
    assert tokenizer.shorten([text], 9, keep_end=True) == [" ".join(LETTERS[1:10])]


def test_characters_that_normalization_expands_are_counted_expanded() -> None:
    """U+FDFA is one character of three bytes, and eighteen of thirty-three once it is normalised."""
    tokenizer = of_bytes(normalizer=normalizers.NFKC())
    assert tokenizer.shorten(["ab\ufdfa"], 20) == ["ab"]
    assert tokenizer.shorten(["ab\ufdfa"], 35) == ["ab\ufdfa"]


@pytest.mark.parametrize(
    ("way", "kept"),
    [("cut", slice(0, 32)), ("refuse", slice(0, 32)), ("cut_start", slice(-32, None)), ("windows", slice(0, 6))],
)
def test_long_query_is_shortened_to_the_space_beside_a_document(way: Any, kept: slice) -> None:
    tokenizer = of_letters()
    query = LETTERS * 1000
    assert tokenizer.shorten_query(" ".join(query), way) == " ".join(query[kept])
    assert tokenizer.shorten_query("a b", way) == "a b"


@pytest.mark.parametrize("overlap", [0, 1, 3])
@pytest.mark.parametrize("letters", [1, 11, 12, 26, 70])
def test_windows_contain_every_token_and_overlap_as_configured(overlap: int, letters: int) -> None:
    tokenizer = of_letters(16, overlap)
    text = (LETTERS * 3)[:letters]
    ((windows, *truncated),) = tokenizer.encode([("a b", " ".join(text))], "windows")
    assert truncated == [False, False]
    ids = [4 + LETTERS.index(letter) for letter in text]
    held = [window.ids[4:-1] for window in windows]
    assert held[0] + [number for each in held[1:] for number in each[overlap:]] == ids
    for before, after in itertools.pairwise(held):
        assert before[len(before) - overlap :] == after[:overlap]
    for window in windows:
        assert len(window.ids) <= 16
        assert window.ids[:4] == [2, 4, 5, 3]
        assert window.type_ids == [0] * 4 + [1] * (len(window.ids) - 4)


def test_windows_of_single_texts_have_one_type_id() -> None:
    ((windows, *_),) = of_letters(10, 2, pairs=False).encode([" ".join(LETTERS)], "windows")
    assert len(windows) == 4
    assert {number for window in windows for number in window.type_ids} == {0}


@pytest.mark.parametrize("way", ["cut", "cut_start", "refuse"])
def test_other_options_give_one_window_and_only_refuse_keeps_it_whole(way: Any) -> None:
    made = of_letters().encode([("a b", " ".join(LETTERS)), ("a", "b")], way)
    lengths = [[len(window.ids) for window in each.windows] for each in made]
    assert lengths == [[31 if way == "refuse" else 16], [5]]
    assert [each.text_truncated for each in made] == [way != "refuse", False]


@pytest.mark.parametrize("way", ["cut", "cut_start"])
@pytest.mark.parametrize("query", [1, 4, 6, 7, 8, 12, 13, 20])
@pytest.mark.parametrize("document", [0, 1, 4, 6, 7, 8, 12, 13, 20])
def test_truncated_side_of_a_pair_is_told(way: Any, query: int, document: int) -> None:
    (made,) = of_letters().encode([(" ".join(LETTERS[:query]), " ".join(LETTERS[:document]))], way)
    (window,) = made.windows
    kept = window.type_ids.count(0) - 2, window.type_ids.count(1) - 1
    assert (made.query_truncated, made.text_truncated) == (kept[0] < query, kept[1] < document)


def test_truncated_single_text_is_told() -> None:
    texts = [" ".join(LETTERS[:14]), " ".join(LETTERS[:15]), ""]
    made = of_letters(pairs=False).encode(texts, "cut")
    assert [each.text_truncated for each in made] == [False, True, False]


def test_length_counts_the_whole_text_with_special_tokens() -> None:
    assert of_letters().length(" ".join(LETTERS)) == 28


@pytest.mark.parametrize(("pairs", "most"), [(True, 3), (False, 3)])
def test_too_large_window_overlap_is_refused(pairs: bool, most: int) -> None:
    assert of_letters(16, most, pairs=pairs).encode([("a", "b") if pairs else "a"], "windows")
    with pytest.raises(SettingsError, match=f"is {most + 1}; the maximum is {most} for a model that reads 16 tokens"):
        of_letters(16, most + 1, pairs=pairs)
