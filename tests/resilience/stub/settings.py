"""Settings of the stub bento."""

from __future__ import annotations

from pydantic import Field

from bentos.embedding.settings import EmbeddingSettings, ModelSettings


class StubSettings(EmbeddingSettings):
    """The embedding bento's, but for the model."""

    env_prefix = "TORCHLESS_STUB_"

    models: tuple[ModelSettings, ...] = Field(default=(ModelSettings(id="tests/stub", revision="r1"),), min_length=1)
    """The models, of which only names and revisions mean something."""
    text_ms: float = Field(default=5.0, ge=0)
    """Time of the device for one text, in milliseconds: the bento does 1000 / text_ms texts a second."""
    failure_exit_s: float = Field(default=3600.0, ge=0)
    """As for the embedding bento; tests look at a lost device for as long as they like."""
    warm_up_batches: int = Field(default=0, ge=0)
    """As for the embedding bento; a clock needs none."""
    faults: str = ""
    """File that holds the faults that are in force, see `Faults`; empty: there never are any."""
    lost_device_is_final: bool = True
    """As `Mount` has it: False lets the bento go on saying SERVING while calls end with GPU_UNAVAILABLE."""
