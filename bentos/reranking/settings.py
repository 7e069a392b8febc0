"""Settings of the reranking bento."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bentos.models.settings import MINILM, ModelServingSettings, WeightsSettings, refuse_equal_ids
from bentos.serving.batching import BatchingSettings


class ModelSettings(WeightsSettings):
    """One reranking model."""

    kind: Literal["cross_encoder", "late_interaction"] = "cross_encoder"
    """`cross_encoder`: reads query and document together, with any sequence classifier with one label. More exact.
    `late_interaction`: reads each alone, with any embedding model, and compares their token vectors (MaxSim)."""
    long_documents: Literal["cut", "windows"] = "cut"
    """Handling of a document longer than the model reads, unless the request says otherwise. `cut` reads its beginning;
    `windows` reads all of it in overlapping windows and takes the best score. Each window is a separate item."""
    max_tokens_per_doc: int = Field(default=4096, ge=1)
    """Most tokens of a document that are read, unless the request says otherwise; the rest is dropped first."""
    window_overlap_tokens: int | None = Field(default=None, ge=0)
    """Tokens that two neighbouring windows share; none: an eighth of the model's longest input."""
    maxsim_weight: float = Field(default=0.5, ge=0, le=1e6)
    """Late interaction: weight of MaxSim, the mean over the query's tokens of the largest cosine with a token of the
    document. Weights count by their ratio."""
    embedding_weight: float = Field(default=0.5, ge=0, le=1e6)
    """Late interaction: weight of the cosine of the two pooled vectors. 0: MaxSim alone."""
    query_prefix: str | None = None
    """Late interaction: text put before a query. None: the model's own prompt for queries, if it has one."""
    document_prefix: str | None = None
    """Late interaction: text put before a document. None: the model's own prompt for documents, if it has one."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.maxsim_weight + self.embedding_weight <= 0:
            raise ValueError("maxsim_weight and embedding_weight must not both be 0")
        return self


DEFAULT_MODEL = ModelSettings.model_validate({**MINILM.model_dump(), "kind": "late_interaction"})
"""Late interaction on all-MiniLM-L6-v2 from an installed package: no download, no GPU."""


class RerankingSettings(ModelServingSettings):
    """The reranking bento."""

    env_prefix = "TORCHLESS_RERANKING_"

    metrics_port: int = Field(default=9102, ge=0, le=65_535)
    """Port of the metrics; 0: no metrics are served."""
    batching: BatchingSettings = BatchingSettings(max_waiting_tokens=4_194_304)
    """Batching and admission."""
    models: tuple[ModelSettings, ...] = Field(default=(DEFAULT_MODEL,), min_length=1)
    """The served models; the first is the default. Models on the same device share its queue."""
    max_queries: int = Field(default=10_000, ge=1)
    """Most queries in one request."""
    max_documents: int = Field(default=10_000, ge=1)
    """Most documents of all queries of a request together."""
    max_query_characters: int = Field(default=100_000, ge=1)
    """Longest query of a request that refuses truncation, in characters. Of others, only the part that the model reads
    is tokenized."""
    max_document_characters: int = Field(default=1_000_000, ge=1)
    """Longest document of such a request, in characters."""
    max_request_characters: int = Field(default=20_000_000, ge=1)
    """Most characters of all queries and documents of such a request together."""

    @model_validator(mode="after")
    def _consistent_models(self) -> Self:
        refuse_equal_ids(self.models)
        return self
