"""The gateway's HTTP API, as far as the command and the demo use it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray


class GatewayError(Exception):
    """The gateway did not answer, or refused; the message is for the user."""


class KeyRefusedError(GatewayError):
    """The gateway asks for a key, and was given none or one that it does not let in."""

    def __init__(self, *, given: bool) -> None:
        refused = "does not let this key in" if given else "asks for a key"
        super().__init__(f"the gateway {refused}: give one that it knows as TORCHLESS_API_KEY, or with --key")


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the gateway says about one endpoint of a service."""

    address: str
    """Where it is."""
    health: str
    """What it says of itself, for instance `serving`."""
    breaker: str
    """What its circuit breaker does: `closed`, `half_open` or `open`."""
    trips: int
    """How often the breaker has opened."""
    next_probe_s: float
    """Seconds until an open breaker lets a probe through."""
    calls_in_flight: int
    """Calls that it has now."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the gateway says about one service behind it."""

    name: str
    """The service."""
    ready: bool
    """Whether it answers calls now."""
    reason: str
    """Why not; empty when it is ready."""
    endpoints: tuple[EndpointState, ...] = ()
    """Its endpoints."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Answer of `/health/ready`."""

    ready: bool
    """Whether everything is."""
    services: tuple[ServiceState, ...]
    """The services behind the gateway."""
    refused: str = ""
    """Why its newest settings are not in force; empty: they are."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document of a reranking."""

    index: int
    """Which, in the order in which they were given, from 0."""
    score: float
    """Its relevance, from 0 to 1."""


class GatewayClient:
    """Calls one gateway.

        async with GatewayClient("http://127.0.0.1:3000") as gateway:
            vectors = await gateway.embed(["a text"])

    Args:
        url: Base URL.
        key: The key to come in with; empty: none.
        timeout_s: Seconds that an answer may take.

    Raises:
        GatewayError: The key has characters that no key of a gateway has.
    """

    def __init__(self, url: str, *, key: str = "", timeout_s: float = 60.0) -> None:
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise GatewayError(
                "the key cannot be sent: keys are printable ASCII characters, with no space at their ends"
            )
        self._url = url
        self._keyed = bool(key)
        # Certificates are read only where they are needed: it takes longer than a call. And no proxy, which
        # `trust_env` would send even a call to this machine through.
        secure = url.startswith("https:")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, trust_env=False, verify=secure)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def readiness(self) -> Readiness:
        """How the gateway and the services behind it are.

        Raises:
            GatewayError: Nothing answers there, or something that is no gateway.
        """
        response = await self._send("GET", "/health/ready")
        answer = _object(response)
        services, settings = answer.get("services"), answer.get("settings")
        if not isinstance(services, dict) or not all(isinstance(state, dict) for state in services.values()):
            raise GatewayError(f"{self._url} answers, but is no torchless gateway")
        states = (
            ServiceState(name, bool(state.get("ready")), str(state.get("reason") or ""), _endpoints(state))
            for name, state in services.items()
        )
        refused = settings.get("refused") if isinstance(settings, dict) else None
        return Readiness(response.status_code == httpx.codes.OK, tuple(states), str(refused or ""))

    async def gpus(self) -> str:
        """What there is of GPUs, in a few words: how many and how much of their memory is free, or why there is none.

        Raises:
            GatewayError: It does not answer, or refuses; then with its own words.
        """
        answer = self._answer(await self._send("GET", "/v1/gpu/status"))
        if not answer["available"]:
            return f"no GPU: {answer['unavailable_reason']}"
        devices = [each for each in answer["devices"] if not each["mig_enabled"]]
        free, total = (sum(each[name] or 0 for each in devices) for name in ("memory_free_mb", "memory_total_mb"))
        return f"{len(devices)} devices, {free} of {total} MiB free"

    async def embed(self, texts: Sequence[str], *, model: str = "", dimensions: int = 0) -> NDArray[np.float32]:
        """Vectors of `texts`, shape (texts, dimensions), through `POST /v1/embeddings`.

        Args:
            texts: What to embed.
            model: Model id; empty: the gateway's default.
            dimensions: Leading dimensions to keep; 0: all.

        Raises:
            GatewayError: It does not answer, or refuses; then with its own words.
        """
        body: dict[str, Any] = {"input": list(texts), "encoding_format": "base64"}
        body |= {"model": model} if model else {}
        body |= {"dimensions": dimensions} if dimensions else {}
        answer = self._answer(await self._send("POST", "/v1/embeddings", json=body))
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])

    async def rerank(self, query: str, documents: Sequence[str], *, model: str = "") -> list[Ranked]:
        """`documents` in the order of their relevance for `query`, the best first, through `POST /v2/rerank`.

        Args:
            query: What they are put in order for.
            documents: What to put in order.
            model: Model id; empty: the gateway's default.

        Raises:
            GatewayError: It does not answer, or refuses; then with its own words.
        """
        body: dict[str, Any] = {"query": query, "documents": list(documents)} | ({"model": model} if model else {})
        answer = self._answer(await self._send("POST", "/v2/rerank", json=body))
        return [Ranked(int(row["index"]), float(row["relevance_score"])) for row in answer["results"]]

    async def _send(self, method: str, path: str, json: Any = None) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=json)
        except httpx.TimeoutException as error:
            raise GatewayError(f"{self._url} does not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayError(
                f"nothing answers at {self._url}: start the stack with `torchless up`, or name another with --gateway"
            ) from error

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        """The body of an answer, or the gateway's own words as an error; API families put those in different places."""
        answer = _object(response)
        if response.status_code == httpx.codes.OK:
            return answer
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise KeyRefusedError(given=self._keyed)
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else answer.get("message")
        raise GatewayError(str(said or f"the gateway answered with HTTP status {response.status_code}"))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _endpoints(state: dict[str, Any]) -> tuple[EndpointState, ...]:
    """Those that a service's state lists; none where it lists none, or in a form that is not known here."""
    try:
        return tuple(
            EndpointState(
                address=str(each["address"]),
                health=str(each["health"]),
                breaker=str(each["breaker"]["state"]),
                trips=int(each["breaker"]["trips"]),
                next_probe_s=float(each["breaker"]["next_probe_s"]),
                calls_in_flight=int(each["calls_in_flight"]),
            )
            for each in state.get("endpoints", [])
        )
    except (KeyError, TypeError, ValueError):
        return ()
