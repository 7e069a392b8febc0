"""Routes for operation: health, metrics, and the API's documentation. All are open to everyone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.apis.operation.schemas import Alive, Readiness
from gateway.apis.tei.errors import TEI
from gateway.encoding.json import json_response
from gateway.http.docs_page import docs_page
from gateway.http.identity import may_see_addresses
from gateway.http.metrics import CONTENT_TYPE
from gateway.http.openapi import MediaType, Operation
from gateway.routing import Call, Routes
from gateway.services import EMBEDDING, RERANKING, Capability, Services
from torchless.clients.base import CapabilityClient
from torchless.clients.deadline import Deadline
from torchless.clients.endpoint_state import EndpointState
from torchless.contracts.errors import ErrorKind, TorchlessError

routes = Routes(TEI)


@routes.get("/health/live", scope=None, bulkhead=None, answer=Alive)
async def live(call: Call) -> Response:
    """Reports that the gateway answers; calls no service."""
    return json_response({"status": "alive"})


@routes.get("/health/ready", scope=None, bulkhead=None, answer=Readiness, also_answered_with=(503,))
async def ready(call: Call) -> Response:
    """Reports whether each service behind the gateway is ready, and why not.

    The status is 503 while one is not ready; the body is the same. The addresses of endpoints are shown only to callers
    with a valid API key; without keys, only to callers on the same machine.
    """
    clients = call.services.clients()
    reasons = await asyncio.gather(*(_failure(client, call) for client in clients))
    states = {
        client.capability: {
            "ready": reason is None,
            "reason": reason,
            "endpoints": [_endpoint(state, shows_address=call.sees_addresses) for state in client.states()],
        }
        for client, reason in zip(clients, reasons, strict=True)
    }
    all_ready = not any(reasons)
    settings = {"refused": call.services.reload_state.refused}
    answer = {"ready": all_ready, "services": states, "settings": settings}
    return json_response(answer, 200 if all_ready else 503)


@routes.get("/health", "/ping", scope=None, bulkhead=None, answer=dict[str, str], statuses=(503,))
async def health(call: Call) -> Response:
    """Reports whether texts can be embedded, as text-embeddings-inference and infinity do.

    `/ping` is for Amazon SageMaker.
    """
    return await _health(EMBEDDING, call)


@routes.get(
    "/reranker/health",
    "/reranker/ping",
    scope=None,
    bulkhead=None,
    answer=dict[str, str],
    statuses=(503,),
)
async def reranker_health(call: Call) -> Response:
    """Reports whether texts can be reranked, as text-embeddings-inference with a reranking model."""
    return await _health(RERANKING, call)


async def _health(capability: Capability[Any], call: Call) -> Response:
    if await _failure(call.services.client(capability), call):
        raise TorchlessError(ErrorKind.UNREACHABLE, "unhealthy")
    return json_response({})


def _endpoint(state: EndpointState, *, shows_address: bool) -> dict[str, Any]:
    breaker = {
        "state": state.breaker.value,
        "trips": state.trips,
        "next_probe_s": round(state.next_probe_s, 1),
    }
    return {
        "address": state.address if shows_address else None,
        "health": state.health.value,
        "breaker": breaker,
        "calls_in_flight": state.calls_in_flight,
    }


async def _failure(client: CapabilityClient, call: Call) -> str | None:
    """Why the service of `client` is not ready; None: it is."""
    longest_s = call.services.settings.health.timeout_s
    try:
        deadline = call.context.deadline.earlier_of(Deadline.after(longest_s))
        context = replace(call.context.for_call(), deadline=deadline)
        obstacle = await client.obstacle(context)
    except TorchlessError as error:
        return error.message
    return None if obstacle is None else obstacle.message


async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format.

    Requests, their durations and the requests in flight, of all workers. The series of single endpoints, whose
    label is an address, are shown only to callers with a valid API key; without keys, only to callers on the same
    machine.
    """
    shows_endpoints = may_see_addresses(request.scope)
    return Response(_services(request).metrics.exposition(endpoints=shows_endpoints), media_type=CONTENT_TYPE)


async def openapi(request: Request) -> Response:
    """Answers the OpenAPI document."""
    return json_response(_document(request))


async def docs(request: Request) -> Response:
    """Answers a page with every route, its fields and example requests, which can also be sent from it."""
    return docs_page()


async def root(request: Request) -> Response:
    """Redirects to the documentation."""
    return RedirectResponse("/docs")


METRICS = Operation("GET", "/metrics", metrics, "Metrics", None, {200: [MediaType("text/plain")]}, reads_headers=False)
"""How the OpenAPI document describes the metrics."""
PAGES = [
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
    Route("/docs", docs),
    Route("/", root),
]
"""Routes that read nothing of a request and are always answered."""


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _document(request: Request) -> dict[str, Any]:
    document: dict[str, Any] = request.app.state.openapi.document(
        requires_key=bool(_services(request).settings.auth.api_keys)
    )
    return document
