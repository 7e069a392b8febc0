"""Small models with other architectures, saved and loaded like any model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bentos.embedding import torch_model
from bentos.embedding.embedder import Embedder, EmbedJob
from bentos.embedding.settings import EmbeddingSettings, ModelSettings
from bentos.models.torch_device import require_device
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsError

pytestmark = pytest.mark.torch

WORDS = [f"w{n}" for n in range(50)]
TEXTS = ["w1 w2 w3", "w4", " ".join(WORDS), "w5 w6 " * 12, "unknown words w7"]
PROMPTS = {"query": "w8 w9: ", "document": "w10 "}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Makes and saves a small random BERT with the modules that follow it."""

    def make(
        pooling: str = "mean", *, include_prompt: bool = True, padding_side: str = "right", dense: bool = False
    ) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / "base"
        tokenizer(padding_side).save_pretrained(folder)
        size: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        BertModel(BertConfig(vocab_size=60, max_position_embeddings=32, **size)).save_pretrained(folder)
        body = Transformer(str(folder), max_seq_length=16)
        modules = [body, Pooling(32, pooling_mode=pooling, include_prompt=include_prompt)]
        if dense:
            modules.append(Dense(32, 12))
        model = SentenceTransformer(modules=[*modules, Normalize()], device="cpu", prompts=PROMPTS)
        model.save(str(tmp_path / "model"))
        return tmp_path / "model"

    return make


def tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{w: 4 + n for n, w in enumerate(WORDS)}}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names: Any = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, padding_side=padding_side, model_max_length=32, **names
    )


async def embed(settings: ModelSettings, job: EmbedJob) -> np.ndarray:
    embedder = Embedder([torch_model.load(settings)], EmbeddingSettings(models=(settings,), warm_up_batches=1))
    await embedder.start()
    try:
        return (await embedder.embed(job)).vectors
    finally:
        await embedder.stop()


def assert_same(got: np.ndarray, wanted: np.ndarray, least: float = 0.99999) -> None:
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    assert ((got * wanted).sum(axis=1) / lengths).min() >= least


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "weightedmean"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
async def test_every_pooling_and_padding_equals_the_library(
    saved: Callable[..., Path], pooling: str, padding_side: str
) -> None:
    folder = saved(pooling, padding_side=padding_side)
    got = await embed(ModelSettings(id="m", path=str(folder)), EmbedJob(texts=TEXTS))
    assert_same(got, SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("purpose", ["query", "document"])
@pytest.mark.parametrize("include_prompt", [True, False])
async def test_prompts_are_prepended_and_pooled_like_the_library(
    saved: Callable[..., Path], purpose: str, include_prompt: bool
) -> None:
    folder = saved(include_prompt=include_prompt)
    got = await embed(ModelSettings(id="m", path=str(folder)), EmbedJob(texts=TEXTS, purpose=purpose))  # type: ignore[arg-type]
    direct = SentenceTransformer(str(folder), device="cpu")
    wanted = {"query": direct.encode_query, "document": direct.encode_document}[purpose](
        TEXTS, normalize_embeddings=True
    )
    assert_same(got, wanted)


async def test_modules_after_pooling_are_run(saved: Callable[..., Path]) -> None:
    folder = saved(dense=True)
    got = await embed(ModelSettings(id="m", path=str(folder)), EmbedJob(texts=TEXTS))
    assert got.shape == (len(TEXTS), 12)
    assert_same(got, SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True))


async def test_vectors_are_truncated_to_matryoshka_dimensions(saved: Callable[..., Path]) -> None:
    folder = saved()
    settings = ModelSettings(id="m", path=str(folder), matryoshka_dimensions=(8, 16))
    got = await embed(settings, EmbedJob(texts=TEXTS, dimensions=16))
    direct = SentenceTransformer(str(folder), device="cpu", truncate_dim=16)
    assert_same(got, direct.encode(TEXTS, normalize_embeddings=True))
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


async def test_bfloat16_weights_give_float32_vectors_near_the_exact_ones(saved: Callable[..., Path]) -> None:
    folder = saved()
    got = await embed(ModelSettings(id="m", path=str(folder), dtype="bfloat16"), EmbedJob(texts=TEXTS))
    assert got.dtype == np.float32
    assert_same(got, SentenceTransformer(str(folder), device="cpu").encode(TEXTS), least=0.999)


async def test_settings_override_prompts_and_longest_input(saved: Callable[..., Path]) -> None:
    settings = ModelSettings(id="m", path=str(saved()), prompts={"task": "w11 "}, max_tokens=8)
    got = await embed(settings, EmbedJob(texts=["w1 " * 30], prompt_name="task"))
    wanted = await embed(settings, EmbedJob(texts=["w11 w1 w1 w1 w1 w1"]))
    assert_same(got, wanted)


def test_token_budget_below_one_input_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="`max_batch_tokens` is 8, but one input may have 16"):
        torch_model.load(ModelSettings(id="m", path=str(saved()), max_batch_tokens=8))


def test_matryoshka_dimensions_above_the_models_are_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="must be below 32"):
        torch_model.load(ModelSettings(id="m", path=str(saved()), matryoshka_dimensions=(64,)))


def test_hub_model_is_loaded_from_the_cache_at_its_revision(
    saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real loading by id, from a cache laid out as the hub's client lays it out."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--team--tiny"
    (repository / "snapshots").mkdir(parents=True)
    saved().rename(repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
    info = torch_model.load(ModelSettings(id="team/tiny", revision=commit)).info
    assert (info.id, info.dimensions) == ("team/tiny", 32)

    refs = repository / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    assert torch_model.load(ModelSettings(id="team/tiny")).info.revision == info.revision, "the commit counts"

    moved = "89abcdef0123456789abcdef0123456789abcdef"
    shutil.copytree(repository / "snapshots" / commit, repository / "snapshots" / moved)
    (refs / "main").write_text(moved)
    assert torch_model.load(ModelSettings(id="team/tiny")).info.revision != info.revision


def revision_of(folder: Path, **changed: Any) -> str:
    return torch_model.load(ModelSettings(id="m", path=str(folder), **changed)).info.revision


def test_same_files_and_settings_have_the_same_revision(saved: Callable[..., Path]) -> None:
    folder = saved()
    before = revision_of(folder)
    moved = folder.rename(folder.with_name("moved"))
    # Settings that change nothing, or speed alone.
    same: list[dict[str, Any]] = [{"max_tokens": 16}, {"prompts": PROMPTS}, {"max_batch_tokens": 64}]
    assert [revision_of(moved, **changed) for changed in same] == [before] * len(same)


def test_each_setting_that_changes_vectors_has_its_own_revision(saved: Callable[..., Path]) -> None:
    folder = saved()
    changes: list[dict[str, Any]] = [
        {},
        {"dtype": "bfloat16"},
        {"max_tokens": 8},
        {"prompts": {"query": "w9: "}},
        {"query_prompt": "document"},
        {"document_prompt": "query"},
    ]
    revisions = [revision_of(folder, **changed) for changed in changes]
    assert len({*revisions}) == len(changes)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "modules.json"])
def test_changed_file_changes_the_revision(saved: Callable[..., Path], file: str) -> None:
    folder = saved()
    before = revision_of(folder)
    changed = (folder / file).read_bytes()
    if file == "model.safetensors":
        changed = changed[:-1] + bytes([changed[-1] ^ 1])  # one bit of one weight
    else:
        changed += b"\n"
    (folder / file).write_bytes(changed)
    assert revision_of(folder) != before


def test_missing_device_is_gpu_unavailable() -> None:
    with pytest.raises(TorchlessError) as caught:
        require_device("cuda:99")
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


def test_model_info_of_a_saved_model(saved: Callable[..., Path]) -> None:
    folder = saved("cls")
    info = torch_model.load(ModelSettings(id="m", path=str(folder))).info
    stated = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert (info.pooling, info.max_tokens, dict(info.prompts)) == ("cls", 16, stated["prompts"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
async def test_cuda_vectors_equal_cpu_vectors(saved: Callable[..., Path]) -> None:
    folder = str(saved())
    on_gpu = await embed(ModelSettings(id="m", path=folder, device="cuda"), EmbedJob(texts=TEXTS))
    assert_same(on_gpu, await embed(ModelSettings(id="m", path=folder), EmbedJob(texts=TEXTS)), least=0.9999)
