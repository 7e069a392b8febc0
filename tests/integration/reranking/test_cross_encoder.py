"""Scores of cross-encoders equal those of `CrossEncoder.predict`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from bentos.reranking import torch_model
from bentos.reranking.model import Query, ScoreForm
from bentos.reranking.reranker import RerankAnswer, Reranker, RerankJob
from bentos.reranking.settings import ModelSettings, RerankingSettings
from bentos.reranking.tokenization import TruncatingTokenizer
from tests.integration.reranking.small_models import (
    LETTERS,
    LONGEST,
    Family,
    save_cross_encoder,
    save_encoder,
    save_language_model,
    save_without_fast_tokenizer,
)
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

pytestmark = pytest.mark.torch
IDENTITY = "torch.nn.modules.linear.Identity"
WITHIN: Any = {"atol": 1e-5, "rtol": 0}

LONG = " ".join(LETTERS * 3)
DOCUMENTS = [
    "a b c",
    "z",
    "sea",
    "the sea freezes early",
    LONG,
    LONG[::-1],
    "xyz " * 11,
    "",
    " ",
    "?",
    "é unknown 東京",
    "ab " * 9,
]
QUERIES = [
    Query("why does the sea freeze", DOCUMENTS),
    Query("q", DOCUMENTS[::-1]),
    Query("a query " * 10, DOCUMENTS),
    Query("a query " * 40, ["a b c", "the sea freezes early", LETTERS * 2]),
]
"""Short, cut, and with a query that leaves its documents half of the tokens."""


def model(folder: str, **how: Any) -> ModelSettings:
    """A model in a folder; windows overlap by less than the default, of which these models could not read two."""
    return ModelSettings.model_validate({"id": "m", "path": folder, "window_overlap_tokens": 4, **how})


async def rerank_each(settings: ModelSettings, jobs: Sequence[RerankJob], **batching: Any) -> list[RerankAnswer]:
    """What comes of jobs that are asked at once."""
    options = {"models": (settings,), "warm_up_batches": 0, "batching": batching}
    reranker = Reranker([torch_model.load(settings)], RerankingSettings.model_validate(options))
    await reranker.start()
    try:
        return list(await asyncio.gather(*(reranker.rerank(job) for job in jobs)))
    finally:
        await reranker.stop()


async def scores_of(settings: ModelSettings, queries: Sequence[Query], **how: Any) -> NDArray[np.float32]:
    """Scores of all documents of all queries, in one request."""
    (answer,) = await rerank_each(settings, [RerankJob(queries, **how)])
    return np.concatenate([each.scores for each in answer.queries])


def predicted(folder: str, queries: Sequence[Query], **how: Any) -> NDArray[np.float32]:
    """The same by the library."""
    direct = CrossEncoder(folder, device="cpu")
    scores: NDArray[np.float32] = direct.predict(
        [(query.text, text) for query in queries for text in query.documents], **how
    )
    return scores


def assert_same(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, **WITHIN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_cross_encoder(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize(
    ("family", "activation", "padding_side"),
    [("bert", "", "right"), ("bert", IDENTITY, "right"), ("roberta", IDENTITY, "right"), ("llama", "", "left")],
)
async def test_scores_of_every_form_equal_the_library(
    tmp_path: Path, family: Family, activation: str, padding_side: str
) -> None:
    saved = save_cross_encoder(tmp_path, family, activation=activation, padding_side=padding_side)
    settings = model(saved)
    raw = predicted(saved, QUERIES, activation_fn=torch.nn.Identity())
    assert raw.std() > 0.1, "scores that are all alike prove nothing"
    assert_same(await scores_of(settings, QUERIES, form="raw"), raw)
    assert_same(await scores_of(settings, QUERIES, form="model"), predicted(saved, QUERIES))
    assert_same(await scores_of(settings, QUERIES, form="unit"), (1 / (1 + np.exp(-raw))).astype(np.float32))
    assert np.array_equal(predicted(saved, QUERIES), raw) is bool(activation)


async def test_scores_do_not_depend_on_batching(folder: str) -> None:
    settings = model(folder)
    pairs = [Query(query.text, [text]) for query in QUERIES for text in query.documents]
    alone = predicted(folder, pairs, batch_size=1)
    forms: list[ScoreForm] = ["model", "raw", "unit"]
    for max_items in (1, 3, 64):
        jobs = [RerankJob([pair], form=forms[n % 3]) for n, pair in enumerate(pairs)]
        answers = await rerank_each(settings, jobs, max_items=max_items)
        for n, answer in enumerate(answers):
            (score,) = answer.queries[0].scores
            logit = np.log(alone[n] / (1 - alone[n]))
            np.testing.assert_allclose(score, logit if forms[n % 3] == "raw" else alone[n], atol=1e-4)


async def test_tokens_equal_the_librarys(folder: str) -> None:
    (answer,) = await rerank_each(model(folder), [RerankJob(QUERIES)])
    tokenizer = CrossEncoder(folder, device="cpu").tokenizer
    for query, got in zip(QUERIES, answer.queries, strict=True):
        # As a list: it would read a single empty text as none, which `predict` does not.
        read = [tokenizer([query.text], [text], truncation=True)["input_ids"][0] for text in query.documents]
        assert got.token_counts == [len(each) for each in read]
        assert max(got.token_counts) <= LONGEST


async def test_single_pair_has_no_left_padding(tmp_path: Path) -> None:
    """Positions of BERT count from the row's start, so only what is alone is the same on either side."""
    saved = save_cross_encoder(tmp_path, padding_side="left")
    jobs = [RerankJob([Query("a b", [text])]) for text in DOCUMENTS]
    answers = await rerank_each(model(saved), jobs, max_items=1)
    wanted = predicted(saved, [Query("a b", DOCUMENTS)], batch_size=1)
    assert_same(np.concatenate([each.queries[0].scores for each in answers]), wanted)


async def test_configured_longest_input_limits_the_model(folder: str) -> None:
    direct = CrossEncoder(folder, device="cpu")
    direct.max_seq_length = 11
    settings = model(folder, max_tokens=11, window_overlap_tokens=1)
    got = await scores_of(settings, QUERIES)
    assert_same(got, direct.predict([(query.text, text) for query in QUERIES for text in query.documents]))


ROOM = LONGEST - 3 - 2
"""Tokens of a document behind a query of two."""


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("overlap", [0, 5])
async def test_score_of_the_best_window_equals_the_score_of_its_text(
    tmp_path: Path, family: Family, overlap: int
) -> None:
    saved = save_cross_encoder(tmp_path, family)
    room = ROOM if family == "bert" else ROOM - 1
    letters = list(LETTERS * 4)[:97]
    starts = range(0, len(letters) - overlap, room - overlap)
    windows = [" ".join(letters[start : start + room]) for start in starts]
    wanted = predicted(saved, [Query("a b", windows)])
    assert len(windows) > 3
    assert wanted.argmax() > 0, "the first window is the best, so the others prove nothing"
    settings = model(saved, window_overlap_tokens=overlap, long_documents="windows")
    job = RerankJob([Query("a b", ["c d", " ".join(letters)])])
    (answer,) = await rerank_each(settings, [job])
    (short, best), (_, tokens) = answer.queries[0].scores, answer.queries[0].token_counts
    np.testing.assert_allclose(best, wanted.max(), **WITHIN)
    np.testing.assert_allclose(short, predicted(saved, [Query("a b", ["c d"])])[0], **WITHIN)
    assert tokens == sum(len(window.split()) + (LONGEST - room) for window in windows)


async def test_long_query_takes_at_most_half_of_a_window(folder: str) -> None:
    query, letters = " ".join("qrst" * 20), list(LETTERS * 2)
    kept, room = " ".join(query.split()[:14]), 15
    settings = model(folder, window_overlap_tokens=0)
    windows = [" ".join(letters[start : start + room]) for start in range(0, len(letters), room)]
    got = await scores_of(settings, [Query(query, [" ".join(letters)])], long_documents="windows")
    np.testing.assert_allclose(got[0], predicted(folder, [Query(kept, windows)]).max(), **WITHIN)


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({"long_documents": "cut_start"}, slice(-ROOM, None)),
        ({"max_tokens_per_doc": 7}, slice(0, 7)),
        ({"max_tokens_per_doc": 7, "long_documents": "cut_start"}, slice(-7, None)),
        ({"max_tokens_per_doc": 7, "long_documents": "windows"}, slice(0, 7)),
    ],
)
async def test_truncated_text_does_not_change_the_score(folder: str, how: dict[str, Any], kept: slice) -> None:
    letters = list(LETTERS * 3)
    got = await scores_of(model(folder), [Query("a b", [" ".join(letters)])], **how)
    assert_same(got, predicted(folder, [Query("a b", [" ".join(letters[kept])])]))


async def test_cut_start_drops_the_start_of_query_and_documents(folder: str) -> None:
    query, document = [*LETTERS * 4], [*LETTERS[::-1] * 2]
    settings = model(folder)
    got = await scores_of(settings, [Query(" ".join(query), [" ".join(document)])], long_documents="cut_start")
    wanted = predicted(folder, [Query(" ".join(query[-14:]), [" ".join(document[-15:])])])
    other = predicted(folder, [Query(" ".join(query[-15:]), [" ".join(document[-14:])])])
    assert min(abs(got - wanted).max(), abs(got - other).max()) < 1e-5


@pytest.mark.parametrize(
    ("query", "document", "named"),
    [
        ("a b", LONG, "queries[0].documents[1]: has 83 tokens as input of the model, which reads at most 32"),
        (LONG, "a b", "queries[0].query: has 80 tokens; the model reads at most 32"),
        (LONG * 3, "a b", "queries[0].query: has 236 tokens"),
    ],
)
async def test_too_long_input_is_refused_with_its_length(folder: str, query: str, document: str, named: str) -> None:
    with pytest.raises(TorchlessError) as caught:
        await scores_of(model(folder), [Query(query, ["fine", document])], long_documents="refuse")
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert named in caught.value.message


async def test_truncated_texts_are_told(folder: str) -> None:
    documents = ["a", " ".join(LETTERS + "a"), " ".join(LETTERS + "ab"), LONG]
    job = RerankJob([Query("a b", documents), Query(" ".join(LETTERS * 2), ["a", LONG])])
    (cut,) = await rerank_each(model(folder), [job])
    assert [(each.truncated, each.query_truncated) for each in cut.queries] == [([2, 3], False), ([1], True)]
    whole = RerankJob(job.queries, long_documents="windows")
    (windows,) = await rerank_each(model(folder), [whole])
    assert [(each.truncated, each.query_truncated) for each in windows.queries] == [([], False), ([], True)]


@pytest.mark.parametrize("long_documents", ["cut", "cut_start"])
async def test_scores_of_texts_of_megabytes_equal_the_library(folder: str, long_documents: Any) -> None:
    document, query = (LONG + " ") * 20_000, (LONG[::-1] + " ") * 10_000
    (answer,) = await rerank_each(
        model(folder), [RerankJob([Query("a b", [document]), Query(query, [document])], long_documents=long_documents)]
    )
    assert [(each.truncated, each.query_truncated) for each in answer.queries] == [([0], False), ([0], True)]
    if long_documents == "cut":
        # The library needs only the beginning, and which of the two is longer once the document is limited.
        document, query = (LONG + " ") * 5, (LONG[::-1] + " ") * 6
        wanted = predicted(folder, [Query("a b", [document]), Query(query, [document])])
        assert_same(np.concatenate([each.scores for each in answer.queries]), wanted)


@pytest.mark.parametrize("asked", [LONGEST * 2 - 1, LONGEST * 2, LONGEST * 2 + 1, LONGEST * 3, LONGEST * 5])
async def test_longer_of_two_very_long_texts_keeps_the_odd_token(folder: str, asked: int) -> None:
    lengths = [LONGEST - 3, LONGEST * 2, LONGEST * 2 + 1, LONGEST * 3 - 1, LONGEST * 3, LONGEST * 4, LONGEST * 5 + 1]
    documents = [" ".join(LETTERS[(n + k) % len(LETTERS)] for n in range(length)) for k, length in enumerate(lengths)]
    query = Query(" ".join(LETTERS[-1 - n % len(LETTERS)] for n in range(asked)), documents)
    assert_same(await scores_of(model(folder), [query]), predicted(folder, [query]))


async def test_long_query_is_shortened_before_it_is_tokenized_with_each_document(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    encode = TruncatingTokenizer.encode

    def counted(self: TruncatingTokenizer, inputs: Any, way: Any) -> Any:
        given.extend(len(query) for query, _ in inputs)
        return encode(self, inputs, way)

    monkeypatch.setattr(TruncatingTokenizer, "encode", counted)
    query = Query("a b c " * 16_000, [f"a {number}" for number in range(100)])
    for way in ("cut", "cut_start", "windows"):
        await scores_of(model(folder), [query], long_documents=way)
    assert len(given) == 300
    assert max(given) < 3 * LONGEST * 2


async def test_bfloat16_weights_give_float32_scores_near_the_exact_ones(folder: str) -> None:
    got = await scores_of(model(folder, dtype="bfloat16"), QUERIES)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, predicted(folder, QUERIES), atol=0.05)


def test_hub_model_is_loaded_from_the_cache_at_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loading by id, from a cache laid out as the hub's client lays it out."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    save_cross_encoder(tmp_path / "cache" / "models--team--tiny" / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
    info = torch_model.load(ModelSettings(id="team/tiny", revision=commit, window_overlap_tokens=4)).info
    assert (info.id, info.kind, info.max_tokens) == ("team/tiny", "cross_encoder", LONGEST)


def test_each_setting_that_changes_scores_has_its_own_revision(folder: str) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"max_tokens": LONGEST - 2},
        {"max_tokens_per_doc": 5},
        {"long_documents": "windows"},
        {"window_overlap_tokens": 2},
    ]
    revisions = [torch_model.load(model(folder, **changed)).info.revision for changed in changes]
    assert len({*revisions}) == len(changes)
    assert torch_model.load(model(folder, max_tokens=LONGEST)).info.revision == revisions[0]


async def test_model_is_loaded_from_an_installed_package(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "package_with_a_model", SimpleNamespace(get_model_path=lambda: folder))
    got = await scores_of(ModelSettings(id="m", package="package_with_a_model", window_overlap_tokens=4), QUERIES)
    assert_same(got, predicted(folder, QUERIES))


async def test_saved_model_is_loaded_with_its_activation(folder: str, tmp_path: Path) -> None:
    CrossEncoder(folder, device="cpu", activation_fn=torch.nn.Tanh()).save_pretrained(str(tmp_path))
    got = await scores_of(model(str(tmp_path)), QUERIES)
    assert_same(got, np.tanh(predicted(folder, QUERIES, activation_fn=torch.nn.Identity())))


def with_three_labels(folder: Path) -> str:
    return save_cross_encoder(folder, labels=3)


def with_a_prompt(folder: Path) -> str:
    made = CrossEncoder(save_cross_encoder(folder / "plain"), prompts={"ask": "a b"}, default_prompt_name="ask")
    made.save_pretrained(str(folder / "prompted"))
    return str(folder / "prompted")


@pytest.mark.parametrize(
    ("save", "named"),
    [
        (with_three_labels, "it has 3 labels"),
        (with_a_prompt, "it puts a prompt before its inputs"),
        (save_language_model, "it is a causal language model"),
        (save_encoder, "its weights are of BertModel, which has no classifier"),
        (save_without_fast_tokenizer, "it has no fast tokenizer"),
    ],
)
def test_unsuitable_model_is_refused_and_named(save: Callable[[Path], str], named: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        torch_model.load(ModelSettings(id="team/other", path=save(tmp_path)))
    assert "team/other" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"window_overlap_tokens": 8}, "`window_overlap_tokens` is 8; the maximum is 7 for a model that reads 32"),
        ({"max_batch_tokens": 16}, "`max_batch_tokens` is 16, but one input may have 32"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(folder: str, how: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        torch_model.load(model(folder, **how))
    assert named in str(caught.value)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_longest_input_above_the_models_positions_is_refused(tmp_path: Path, family: Family) -> None:
    saved = save_cross_encoder(tmp_path, family)
    with pytest.raises(SettingsError, match=f"`max_tokens` is {LONGEST + 1}; the model has {LONGEST} positions"):
        torch_model.load(model(saved, max_tokens=LONGEST + 1))


@pytest.mark.parametrize("family", ["bert", "roberta"])
async def test_longest_input_comes_from_the_weights_if_the_tokenizer_has_none(tmp_path: Path, family: Family) -> None:
    saved = save_cross_encoder(tmp_path, family, stated_length=None)
    settings = model(saved)
    assert torch_model.load(settings).info.max_tokens == LONGEST
    assert np.isfinite(await scores_of(settings, QUERIES)).all()


def test_missing_device_is_gpu_unavailable(folder: str) -> None:
    with pytest.raises(TorchlessError) as caught:
        torch_model.load(model(folder, device="cuda:99"))
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE
    assert "cuda:99" in caught.value.message
