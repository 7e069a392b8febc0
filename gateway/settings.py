"""Settings of the gateway: environment prefix `TORCHLESS_GATEWAY_`, values in `configs/gateway.yaml`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.settings import ClientSettings
from torchless.settings import ProgramSettings, SettingsGroup


class EmbeddingClientSettings(ClientSettings):
    """How the embedding service is called."""

    address: str = "127.0.0.1:50051"
    """Where the embedding service listens: `host:port`, several of them with commas between, or `dns:///name:port` for
    all the addresses that a name has."""
    concurrency: ConcurrencySettings = ConcurrencySettings()
    """The limit on requests in flight of each worker."""
    joining: JoiningSettings = JoiningSettings()
    """Joining of small requests into one call."""


class RerankingClientSettings(ClientSettings):
    """How the reranking service is called."""

    is_optional = True
    address: str = "127.0.0.1:50052"
    """Where the reranking service listens, as for embedding; empty: there is none, and its routes say so."""
    deadline_s: float = Field(default=60.0, gt=0, le=3600)
    """Deadline of a request that reranks whose caller gives none, in seconds; at most `limits.max_deadline_s`."""
    concurrency: ConcurrencySettings = ConcurrencySettings()
    """The limit on requests in flight of each worker."""


class GPUConcurrencySettings(ConcurrencySettings):
    """How many calls to the GPU service one worker has in flight: fewer than of those that compute in batches."""

    initial: int = Field(default=32, ge=1)
    """The limit at start, in calls. The service answers from what it knows, so a few calls at a time are many."""
    min: int = Field(default=16, ge=1)
    """The limit is never less, in calls. OVERLOADED, which shrinks it, may also mean that no memory is free."""
    max: int = Field(default=64, ge=1)
    """The limit is never more, in calls."""


class GPUClientSettings(ClientSettings):
    """How the GPU service is called."""

    is_optional = True
    address: str = "127.0.0.1:50056"
    """Where the GPU service listens, one `host:port`; empty: there is none, and its routes say so."""
    deadline_s: float = Field(default=10.0, gt=0, le=3600)
    """Deadline of a call whose caller gives none, in seconds."""
    concurrency: GPUConcurrencySettings = GPUConcurrencySettings()
    """The limit on requests in flight of each worker."""

    @field_validator("address")
    @classmethod
    def _is_one(cls, given: str) -> str:
        if "," in given or given.startswith("dns:"):
            raise ValueError("names one service, by host:port: its leases are known to no other")
        return given


class LimitSettings(SettingsGroup):
    """How much one request, and all of them together, may ask for."""

    body_mib: float = Field(default=32.0, gt=0, le=1024)
    """Largest request body, in MiB. It is refused while it is read, not after."""
    bodies_mib: float = Field(default=256.0, gt=0)
    """Most bodies that one worker holds at one time, in MiB, at least `body_mib`; more are answered 429. Those of one
    capability hold no more than they leave free, so that the others find room: twice `body_mib` is enough for the
    largest body, if it is its capability's only one, beside a capability that hangs, four times beside two. What they
    are turned into takes some times as much."""
    items: int = Field(default=2048, ge=1, le=50_000)
    """Most inputs in one request."""
    characters: int = Field(default=100_000, ge=1)
    """Longest input in Unicode code points, and most token ids of one input."""
    documents: int = Field(default=10_000, ge=1, le=50_000)
    """Most documents in one request that reranks, and most pairs in one that scores."""
    document_characters: int = Field(default=1_000_000, ge=1)
    """Longest document of a request that reranks, in Unicode code points. What the model does not read of it is cut or
    read in windows, as the reranking service is configured. Its query may be as long as `characters`."""
    tokenize_characters: int = Field(default=200_000, ge=1)
    """Most Unicode code points of all texts of a `/tokenize` request, and most token ids of a `/decode` request: each
    token is answered as an object of its own."""
    concurrent_requests: int = Field(default=1024, ge=1)
    """Most requests that one worker works on at once, without those for health, metrics and the API's description,
    which are always answered; more are answered 429. Those of one capability are no more than they leave places free,
    so that the others find some."""
    deadline_s: float = Field(default=30.0, gt=0, le=3600)
    """Deadline of a request whose caller names none in `x-request-timeout-s`, in seconds; of one that reranks,
    `reranking.deadline_s`."""
    max_deadline_s: float = Field(default=60.0, gt=0, le=3600)
    """Longest deadline that a caller may name, in seconds; longer ones become this. BentoML keeps 0.8 kB a request for
    as long: 16 MB at 300 requests a second and 60 seconds."""

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.bodies_mib < self.body_mib:
            raise ValueError("bodies_mib is less than body_mib; there would be no room for the largest body")
        return self


_SHORTEST_KEY = 8
_BUILT_IN_ALIASES = {"default/not-specified": ""}


class ModelSettings(SettingsGroup):
    """Names by which requests may call models."""

    aliases: dict[str, str] = Field(default_factory=lambda: dict(_BUILT_IN_ALIASES))
    """Other names for models: each stands for the id beside it; an empty id is the service's default model.
    `default/not-specified`, which infinity's client sends when its user names no model, is always there, and stands for
    the default model unless it is given another."""

    rerank_aliases: dict[str, str] = Field(default_factory=lambda: dict(_BUILT_IN_ALIASES))
    """The same for models that rerank."""

    @field_validator("aliases", "rerank_aliases")
    @classmethod
    def _with_those_built_in(cls, given: dict[str, str]) -> dict[str, str]:
        return _BUILT_IN_ALIASES | given


class OpenAISettings(SettingsGroup):
    """The OpenAI routes."""

    token_id_vocabulary: Literal["cl100k_base", "model"] = "cl100k_base"  # noqa: S105  # not that kind of token
    """How token ids in `input` are read: as cl100k_base, which OpenAI's clients send, or as the model's own."""

    @property
    def reads_cl100k(self) -> bool:
        """Whether token ids are cl100k_base's."""
        return self.token_id_vocabulary == "cl100k_base"  # noqa: S105


class TEISettings(SettingsGroup):
    """The routes of text-embeddings-inference, whose requests name no model."""

    model: str = ""
    """Id of the model with which they embed; empty: the service's default model."""
    rerank_model: str = ""
    """Id of the model with which they rerank; empty: the service's default model."""
    auto_truncate: bool = True
    """Whether over-long inputs are cut where a request does not say."""


class AuthSettings(SettingsGroup):
    """Who may call."""

    api_keys: tuple[SecretStr, ...] = ()
    """Keys that are let in; empty: everybody is. With keys, every route but health, metrics and the API's description
    asks for one, as `Authorization: Bearer <key>`, `Authorization: <key>` or `X-Api-Key: <key>`. At least 8 printable
    ASCII characters each: clients send others in different encodings. Best given as a variable, not in a file."""

    @field_validator("api_keys")
    @classmethod
    def _can_be_sent(cls, given: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in (each.get_secret_value() for each in given):
            if not key.isascii() or not key.isprintable():
                raise ValueError("a key has printable ASCII characters alone: clients send others in several encodings")
            if len(key) < _SHORTEST_KEY or key != key.strip():
                raise ValueError(f"a key has at least {_SHORTEST_KEY} characters, and no space at its ends")
        return given


class HealthSettings(SettingsGroup):
    """Readiness checks."""

    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Time that each service has to answer a readiness check, in seconds."""


class ReloadSettings(SettingsGroup):
    """Changes of the settings' file while the gateway runs."""

    interval_s: float = Field(default=1.0, ge=0, le=3600)
    """Time between two looks at the file that `TORCHLESS_GATEWAY_CONFIG` names, in seconds; 0: only when a worker gets
    SIGHUP. A change that cannot be used is refused, and what was before stays in force."""


class GatewaySettings(ProgramSettings):
    """All settings of the gateway."""

    env_prefix: ClassVar[str] = "TORCHLESS_GATEWAY_"

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log lines written."""
    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes, each with its own event loop and its own channels."""
    embedding: EmbeddingClientSettings = EmbeddingClientSettings()
    """How the embedding service is called."""
    reranking: RerankingClientSettings = RerankingClientSettings()
    """How the reranking service is called."""
    gpu: GPUClientSettings = GPUClientSettings()
    """How the GPU service is called."""
    cache: CacheSettings = CacheSettings()
    """The cache of embeddings."""
    limits: LimitSettings = LimitSettings()
    """How much a request may ask for."""
    models: ModelSettings = ModelSettings()
    """Names of models."""
    openai: OpenAISettings = OpenAISettings()
    """The OpenAI routes."""
    tei: TEISettings = TEISettings()
    """The text-embeddings-inference routes."""
    auth: AuthSettings = AuthSettings()
    """Who may call."""
    health: HealthSettings = HealthSettings()
    """Readiness checks."""
    reload: ReloadSettings = ReloadSettings()
    """Changes while the gateway runs."""
