"""Settings of the gateway: environment prefix `TORCHLESS_GATEWAY_`, values in `configs/gateway.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.cache.settings import CacheSettings
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.settings import ClientDefaults, ClientSettings
from torchless.settings import LogSettings, ProgramSettings, SettingsGroup


class SharedClientSettings(ClientDefaults):
    """How the services are called. A service's own group takes the same names and overrides these values."""

    concurrency: ConcurrencySettings = ConcurrencySettings()
    """The limit on requests in flight to one service from each worker."""


class EmbeddingClientSettings(ClientSettings):
    """How the embedding service is called."""

    address: str = "127.0.0.1:50051"
    """Address of the embedding service: `host:port`, several of them separated by commas, or `dns:///name:port` for all
    addresses of a name."""
    joining: JoiningSettings = JoiningSettings()
    """Joining of small requests into one call."""


class RerankingClientSettings(ClientSettings):
    """How the reranking service is called."""

    is_optional = True
    address: str = "127.0.0.1:50052"
    """Address of the reranking service, in the same forms; empty: there is none, and its routes answer 503."""
    deadline_s: float = Field(default=60.0, gt=0, le=3600)
    """Deadline of a reranking request whose caller sets none, in seconds; at most `limits.max_deadline_s`."""


class GPUConcurrencySettings(ConcurrencySettings):
    """The limit on calls to the GPU service: lower than for services that compute in batches."""

    initial: int = Field(default=32, ge=1)
    """The limit at start, in calls. The service answers from memory, so few calls at a time are many a second."""
    min: int = Field(default=16, ge=1)
    """The lowest limit, in calls. OVERLOADED, which lowers the limit, may also mean that no GPU memory is free."""
    max: int = Field(default=64, ge=1)
    """The highest limit, in calls."""


class GPUClientSettings(ClientSettings):
    """How the GPU service is called."""

    is_optional = True
    address: str = "127.0.0.1:50056"
    """Address of the GPU service, a single `host:port`; empty: there is none, and its routes answer 503."""
    deadline_s: float = Field(default=10.0, gt=0, le=3600)
    """Deadline of a call that has none, in seconds."""
    concurrency: GPUConcurrencySettings = GPUConcurrencySettings()
    """The limit on requests in flight to the GPU service from each worker."""

    @field_validator("address")
    @classmethod
    def _is_single(cls, given: str) -> str:
        if "," in given or given.startswith("dns:"):
            raise ValueError("must be a single host:port; leases are not shared between GPU services")
        return given


class HTTPSettings(SettingsGroup):
    """Connections of HTTP clients. A change applies to new connections."""

    keep_alive_s: float = Field(default=75.0, gt=0, le=86_400)
    """Time after which an idle connection is closed, in seconds. It must be longer than load balancers in front of the
    gateway keep connections, often 60 s: otherwise they send requests into connections that are closing."""
    head_s: float = Field(default=20.0, gt=0, le=3600)
    """Time that a client has to send the request line and the headers of a request, in seconds; later it gets 408."""
    head_kib: float = Field(default=32.0, ge=1, le=1024)
    """Largest request line and headers of one request together, in KiB; larger ones get 414 or 431. There may be 100
    headers."""
    stall_s: float = Field(default=20.0, ge=1, le=3600)
    """Longest pause of a client in sending a body, which then gets 408, and in reading an answer, in seconds."""


class LimitSettings(SettingsGroup):
    """Limits of one request, and of all requests together."""

    body_mib: float = Field(default=32.0, gt=0, le=1024)
    """Largest request body, in MiB. A larger one is refused as soon as the limit is passed."""
    bodies_mib: float = Field(default=256.0, gt=0)
    """Memory for the request bodies that one worker holds at a time, in MiB, at least `body_mib`; beyond it requests
    get 429. One capability holds no more than it leaves free for the others: twice `body_mib` is enough for one largest
    body while another capability hangs, four times while two hang. Parsed bodies take several times as much."""
    items: int = Field(default=2048, ge=1, le=50_000)
    """Most inputs in one request."""
    truncate: bool = True
    """Whether an input that is longer than the model reads is truncated when its request does not say. The answer then
    counts such inputs in the header `x-torchless-truncated`. false: the request is refused, also where the reranking
    service would read a document in windows."""
    documents: int = Field(default=10_000, ge=1, le=50_000)
    """Most documents in one reranking request, and most pairs in one scoring request."""
    tokenize_characters: int = Field(default=4_000_000, ge=1)
    """Most Unicode code points of all texts of a `/tokenize` request, and most token ids of a `/decode` request. Each
    token is an object of the answer, which takes 15 times the size of the texts."""
    concurrent_requests: int = Field(default=1024, ge=1)
    """Most requests in flight in one worker; beyond it requests get 429. A request with a JSON
    body counts once the body has arrived. Health, metrics and the API's description are always answered. One capability
    takes no more than it leaves free for the others."""
    deadline_s: float = Field(default=30.0, gt=0, le=3600)
    """Deadline of a request whose caller sets none in `x-request-timeout-s`, in seconds; for reranking see
    `reranking.deadline_s`."""
    max_deadline_s: float = Field(default=60.0, gt=0, le=3600)
    """Longest deadline that a caller can set, in seconds; a longer one is shortened to this. BentoML keeps 0.8 kB for
    each request for as long: 16 MB at 300 requests a second and 60 seconds."""

    @model_validator(mode="after")
    def _largest_body_fits(self) -> Self:
        if self.bodies_mib < self.body_mib:
            raise ValueError("bodies_mib is less than body_mib; the largest body would never fit")
        return self


BUILT_IN_ALIASES = {"default/not-specified": ""}
"""Aliases that always exist. They are no names to choose from, and `/v1/models` does not list them."""


class ModelSettings(SettingsGroup):
    """Names that requests may use for models."""

    aliases: dict[str, str] = Field(default_factory=lambda: dict(BUILT_IN_ALIASES))
    """Other names of embedding models, each with the id that it stands for; an empty id is the service's default model.
    `default/not-specified`, which infinity's client sends when its user names no model, is built in and stands for the
    default model."""

    rerank_aliases: dict[str, str] = Field(default_factory=lambda: dict(BUILT_IN_ALIASES))
    """The same for reranking models."""

    @field_validator("aliases", "rerank_aliases")
    @classmethod
    def _add_built_in(cls, given: dict[str, str]) -> dict[str, str]:
        return BUILT_IN_ALIASES | given


class OpenAISettings(SettingsGroup):
    """The OpenAI routes."""

    token_id_vocabulary: Literal["cl100k_base", "model"] = "cl100k_base"  # noqa: S105  # not that kind of token
    """Vocabulary of the token ids in `input`: cl100k_base, which OpenAI's clients send, or the model's own."""

    @property
    def reads_cl100k(self) -> bool:
        """Whether token ids are cl100k_base's."""
        return self.token_id_vocabulary == "cl100k_base"  # noqa: S105


class TEISettings(SettingsGroup):
    """The routes of text-embeddings-inference, whose requests name no model."""

    model: str = ""
    """Id of their embedding model; empty: the service's default model."""
    rerank_model: str = ""
    """Id of their reranking model; empty: the service's default model."""


AccessScope = Literal["embed", "rerank", "gpu:read", "gpu:write", "models:read"]
"""What a caller may do; each route requires one scope."""
ALL_SCOPES: frozenset[AccessScope] = frozenset(get_args(AccessScope))
_MIN_KEY_LENGTH = 8


class APIKey(SettingsGroup):
    """An API key, and the principal that it stands for."""

    key: SecretStr
    """The key: at least 8 printable ASCII characters, because clients encode others in different ways."""
    name: str = Field(default="", max_length=128)
    """Name of the principal, for people."""
    tenant: str = Field(default="", max_length=128)
    """Tenant of the principal, in printable ASCII; empty: no tenant in particular. Its embeddings are cached apart from
    those of other tenants, and its GPU leases carry its name."""
    scopes: tuple[AccessScope, ...] = tuple(sorted(ALL_SCOPES))
    """What the principal may do."""

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, given: SecretStr) -> SecretStr:
        key = given.get_secret_value()
        if not key.isascii() or not key.isprintable():
            raise ValueError("a key must be printable ASCII; clients encode other characters differently")
        if len(key) < _MIN_KEY_LENGTH or key != key.strip():
            raise ValueError(f"a key must have at least {_MIN_KEY_LENGTH} characters, without spaces at its ends")
        return given

    @field_validator("tenant")
    @classmethod
    def _can_be_metadata(cls, given: str) -> str:
        if not (given.isascii() and given.isprintable()):
            raise ValueError("a tenant must consist of printable ASCII characters")
        if given != given.strip():
            raise ValueError("a tenant must have no space at its ends")
        return given


def _key_alone(given: Any) -> Any:
    return given if isinstance(given, Mapping | APIKey) else {"key": given}


class AuthSettings(SettingsGroup):
    """Authentication."""

    api_keys: tuple[Annotated[APIKey, BeforeValidator(_key_alone)], ...] = ()
    """API keys; empty: no key is required. With keys, every route requires one, except health, metrics and the API's
    documentation: as `Authorization: Bearer <key>`, `Authorization: <key>` or `X-Api-Key: <key>`. An entry is a key
    alone, which has all scopes and no tenant, or an object with `key`, `name`, `tenant` and `scopes`. Best set by the
    environment variable, not in a file."""

    @field_validator("api_keys")
    @classmethod
    def _are_distinct(cls, given: tuple[APIKey, ...]) -> tuple[APIKey, ...]:
        if len({each.key.get_secret_value() for each in given}) < len(given):
            raise ValueError("two entries have the same key")
        return given


_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\\s]+")


class CORSSettings(SettingsGroup):
    """Web pages that may use the gateway from a browser."""

    allow_origins: tuple[str, ...] = ()
    """Origins of these pages, such as `https://app.example.com` or `http://localhost:5173`; `*`: every page, which
    without API keys lets every page that someone visits use the gateway. Empty: no page of another origin."""

    @field_validator("allow_origins")
    @classmethod
    def _are_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if each != "*" and not _ORIGIN.fullmatch(each):
                raise ValueError(f"{each}: must be * or scheme://host[:port], in lower case and without a path")
        return given


class HealthSettings(SettingsGroup):
    """Readiness checks."""

    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Time that each service has to answer a readiness check or to list its models, in seconds."""


class ReloadSettings(SettingsGroup):
    """Changes of the settings file while the gateway runs."""

    watch: bool = True
    """Whether a change of the file that `TORCHLESS_GATEWAY_CONFIG` names is applied as soon as it is noticed; false:
    only when a worker gets SIGHUP. Settings that cannot be used are refused, and the previous ones stay in force."""


class GatewaySettings(ProgramSettings):
    """All settings of the gateway, the most commonly set first."""

    env_prefix: ClassVar[str] = "TORCHLESS_GATEWAY_"

    clients: SharedClientSettings = SharedClientSettings()
    """How all services are called."""
    embedding: EmbeddingClientSettings = EmbeddingClientSettings()
    """How the embedding service is called."""
    reranking: RerankingClientSettings = RerankingClientSettings()
    """How the reranking service is called."""
    gpu: GPUClientSettings = GPUClientSettings()
    """How the GPU service is called."""
    auth: AuthSettings = AuthSettings()
    """Authentication."""
    cors: CORSSettings = CORSSettings()
    """Web pages that may use the gateway."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names under which the gateway may be called, without ports; `*`: every name. IP addresses, `localhost`, this
    machine's name, and names that end in `.localhost` or `.internal` may always be used. Empty: every name, except that
    a gateway without API keys accepts only those over a loopback address: otherwise a web page could use it by DNS
    rebinding. A proxy on the same machine may need its name here."""
    limits: LimitSettings = LimitSettings()
    """Limits of requests."""
    http: HTTPSettings = HTTPSettings()
    """Connections of HTTP clients."""
    models: ModelSettings = ModelSettings()
    """Names of models."""
    cache: CacheSettings = CacheSettings()
    """The cache of embeddings."""
    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes, each with its own event loop and its own channels."""
    log: LogSettings = LogSettings()
    """The log."""
    openai: OpenAISettings = OpenAISettings()
    """The OpenAI routes."""
    tei: TEISettings = TEISettings()
    """The text-embeddings-inference routes."""
    health: HealthSettings = HealthSettings()
    """Readiness checks."""
    reload: ReloadSettings = ReloadSettings()
    """Changes while the gateway runs."""

    @field_validator("allowed_hosts")
    @classmethod
    def _are_host_names(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            if each != "*" and not _HOST_NAME.fullmatch(each):
                raise ValueError(f"{each}: must be * or a host name without a port, such as gateway.example.com")
        return tuple(each.lower() for each in given)

    @field_validator("*", mode="before")
    @classmethod
    def _complete_from_clients(cls, given: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(kind, type) and issubclass(kind, ClientSettings) and "clients" in info.data:
            return kind.complete(given, info.data["clients"])
        return given
