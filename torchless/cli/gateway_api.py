"""A client of the gateway's HTTP API, for the command and the demo."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from torchless.cli.provenance import Provenance


class GatewayError(Exception):
    """The gateway did not answer or refused the request; the message is for the user."""


class KeyRefusedError(GatewayError):
    """The gateway requires an API key, and the request had none or an invalid one."""

    def __init__(self, *, given: bool) -> None:
        reason = "does not accept this API key" if given else "requires an API key"
        super().__init__(f"the gateway {reason}: set TORCHLESS_API_KEY or --key to a valid one")


@dataclass(frozen=True, slots=True)
class EndpointState:
    """The state of one endpoint of a service, as the gateway reports it."""

    address: str
    """`host:port`; empty: the gateway shows it only with a valid API key."""
    health: str
    """The health that it reports, for example `serving`."""
    breaker: str
    """State of its circuit breaker: `closed`, `half_open` or `open`."""
    trips: int
    """How many times the breaker has opened."""
    next_probe_s: float
    """Seconds until an open breaker lets a half-open probe through."""
    calls_in_flight: int
    """Calls that it is answering now."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The state of one service behind the gateway, as the gateway reports it."""

    name: str
    """The service's name."""
    ready: bool
    """Whether it answers calls."""
    reason: str
    """Why it is not ready; empty if it is."""
    endpoints: tuple[EndpointState, ...] = ()
    """Its endpoints."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The response of `/health/ready`."""

    ready: bool
    """Whether the gateway and all its services are ready."""
    services: tuple[ServiceState, ...]
    """The services behind the gateway."""
    refused: str = ""
    """Why the gateway refused its newest settings; empty: it did not."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The score of one document."""

    index: int
    """Its position in the request, from 0."""
    score: float
    """Its relevance to the query, from 0 to 1."""


class GatewayClient:
    """Calls one gateway.

        async with GatewayClient("http://127.0.0.1:3000") as gateway:
            vectors = await gateway.embed(["a text"])

    Args:
        url: Base URL.
        key: API key; empty: none.
        timeout_s: Timeout of a request, in seconds.
        provenance: Collects what answers to `embed` and `rerank` say about themselves.

    Raises:
        GatewayError: The key has characters that an API key cannot have.
    """

    def __init__(
        self, url: str, *, key: str = "", timeout_s: float = 60.0, provenance: Provenance | None = None
    ) -> None:
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise GatewayError(
                "the API key is not valid: it must be printable ASCII characters, without spaces at its start or end"
            )
        self._url = url
        self._keyed = bool(key)
        self._provenance = provenance or Provenance()
        # Certificates are loaded only for https, because that takes longer than a call. `trust_env` would send even
        # calls to this machine through a proxy.
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
        """Asks whether the gateway and the services behind it are ready.

        Raises:
            GatewayError: Nothing answers there, or it is not a gateway.
        """
        response = await self._send("GET", "/health/ready")
        answer = _object(response)
        services, settings = answer.get("services"), answer.get("settings")
        if not isinstance(services, dict) or not all(isinstance(state, dict) for state in services.values()):
            raise GatewayError(f"{self._url} answers, but it is not a torchless gateway")
        states = (
            ServiceState(name, bool(state.get("ready")), str(state.get("reason") or ""), _endpoints(state))
            for name, state in services.items()
        )
        refused = settings.get("refused") if isinstance(settings, dict) else None
        return Readiness(response.status_code == httpx.codes.OK, tuple(states), str(refused or ""))

    async def metrics(self) -> str:
        """The gateway's metrics in Prometheus' text format.

        Raises:
            GatewayError: Nothing answers there.
        """
        return (await self._send("GET", "/metrics")).text

    async def models(self) -> list[dict[str, Any]]:
        """The served models and aliases, as `GET /v1/models` lists them.

        Raises:
            GatewayError: The gateway does not answer or refuses the request, with its message.
        """
        found: list[dict[str, Any]] = self._answer(await self._send("GET", "/v1/models"))["data"]
        return found

    async def gpus(self) -> str:
        """Describes the GPUs in a few words: their number and free memory, or why there are none.

        Raises:
            GatewayError: The gateway does not answer or refuses the request, with its message.
        """
        answer = self._answer(await self._send("GET", "/v1/gpu/status"))
        if not answer["available"]:
            return f"no GPU: {answer['unavailable_reason']}"
        devices = [device for device in answer["devices"] if not device["mig_enabled"]]
        free, total = (sum(device[name] or 0 for device in devices) for name in ("memory_free_mb", "memory_total_mb"))
        return f"{len(devices)} devices, {free} of {total} MiB free"

    async def embed(self, texts: Sequence[str], *, model: str = "", dimensions: int = 0) -> NDArray[np.float32]:
        """Embeds texts by `POST /v1/embeddings`; returns vectors of shape (texts, dimensions), float32.

        Args:
            texts: The texts to embed.
            model: Model id; empty: the gateway's default model.
            dimensions: Number of leading dimensions to keep; 0: all.

        Raises:
            GatewayError: The gateway does not answer or refuses the request, with its message.
        """
        body: dict[str, Any] = {"input": list(texts), "encoding_format": "base64"}
        body |= {"model": model} if model else {}
        body |= {"dimensions": dimensions} if dimensions else {}
        response = await self._send("POST", "/v1/embeddings", json=body)
        answer = self._answer(response)
        self._provenance.add_headers(response.headers)
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows])

    async def rerank(self, query: str, documents: Sequence[str], *, model: str = "") -> list[Ranked]:
        """Sorts documents by their relevance to a query, the best first, by `POST /v2/rerank`.

        Args:
            query: The query.
            documents: The documents to sort.
            model: Model id; empty: the gateway's default model.

        Raises:
            GatewayError: The gateway does not answer or refuses the request, with its message.
        """
        body: dict[str, Any] = {"query": query, "documents": list(documents)} | ({"model": model} if model else {})
        response = await self._send("POST", "/v2/rerank", json=body)
        answer = self._answer(response)
        self._provenance.add_headers(response.headers)
        return [Ranked(int(row["index"]), float(row["relevance_score"])) for row in answer["results"]]

    async def _send(self, method: str, path: str, json: Any = None) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=json)
        except httpx.TimeoutException as error:
            raise GatewayError(f"{self._url} does not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayError(
                f"nothing answers at {self._url}: start the stack with `torchless up`, or set --gateway to another URL"
            ) from error

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        """The body of a response, or its error message as an exception; API families put that in different places."""
        answer = _object(response)
        if response.status_code == httpx.codes.OK:
            return answer
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise KeyRefusedError(given=self._keyed)
        error = answer.get("error")
        message = error.get("message") if isinstance(error, dict) else answer.get("message")
        raise GatewayError(str(message or f"the gateway answered with HTTP status {response.status_code}"))


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _endpoints(state: dict[str, Any]) -> tuple[EndpointState, ...]:
    """The endpoints in a service's state; none if it has none, or lists them in an unknown form."""
    try:
        return tuple(
            EndpointState(
                address=str(endpoint["address"] or ""),
                health=str(endpoint["health"]),
                breaker=str(endpoint["breaker"]["state"]),
                trips=int(endpoint["breaker"]["trips"]),
                next_probe_s=float(endpoint["breaker"]["next_probe_s"]),
                calls_in_flight=int(endpoint["calls_in_flight"]),
            )
            for endpoint in state.get("endpoints", [])
        )
    except (KeyError, TypeError, ValueError):
        return ()
