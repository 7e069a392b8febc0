"""Whether the gateway lives, and whether what it needs is ready."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.apis.operation.schemas import Alive, Readiness
from gateway.apis.tei.errors import TEI
from gateway.encoding.json import json_response
from gateway.routing import Call, DirectRoute, get
from gateway.services import EMBEDDING
from torchless.clients.base import CapabilityClient
from torchless.clients.deadline import Deadline
from torchless.clients.endpoint_state import EndpointState
from torchless.contracts.errors import ErrorKind, TorchlessError

router = APIRouter(route_class=DirectRoute)


@get(router, "/health/live", compartment=None, family=TEI, answer=Alive, head=True, open_to_all=True)
async def live(call: Call) -> Response:
    """Whether the gateway answers. Calls no service."""
    return json_response({"status": "alive"})


@get(
    router,
    "/health/ready",
    compartment=None,
    family=TEI,
    answer=Readiness,
    also_answered_with=(503,),
    head=True,
    open_to_all=True,
)
async def ready(call: Call) -> Response:
    """Whether each service behind the gateway is ready, and why not.

    The status is 503 while one is not; the body is the same.
    """
    clients = call.services.clients()
    reasons = await asyncio.gather(*(_reason_it_is_not_ready(client, call) for client in clients))
    states = {
        client.capability: {
            "ready": reason is None,
            "reason": reason,
            "endpoints": [_endpoint(state) for state in client.states()],
        }
        for client, reason in zip(clients, reasons, strict=True)
    }
    everything = not any(reasons)
    settings = {"refused": call.services.reload_state.refused}
    answer = {"ready": everything, "services": states, "settings": settings}
    return json_response(answer, 200 if everything else 503)


@get(
    router, "/health", compartment=None, family=TEI, answer=dict[str, str], statuses=(503,), head=True, open_to_all=True
)
async def health(call: Call) -> Response:
    """Whether texts can be embedded, as text-embeddings-inference and infinity say it."""
    if await _reason_it_is_not_ready(call.services.client(EMBEDDING), call):
        raise TorchlessError(ErrorKind.UNREACHABLE, "unhealthy")
    return json_response({})


def _endpoint(state: EndpointState) -> dict[str, Any]:
    breaker = {
        "state": state.breaker.value,
        "trips": state.trips,
        "next_probe_s": round(state.next_probe_s, 1),
    }
    return {
        "address": state.address,
        "health": state.health.value,
        "breaker": breaker,
        "calls_in_flight": state.calls_in_flight,
    }


async def _reason_it_is_not_ready(client: CapabilityClient, call: Call) -> str | None:
    longest_s = call.services.settings.health.timeout_s
    try:
        deadline = call.context.deadline.earlier_of(Deadline.after(longest_s))
        context = replace(call.context.for_call(), deadline=deadline)
        serving = await client.ready(context)
    except TorchlessError as error:
        return error.message
    return None if serving else f"the {client.capability} service is up, but not ready; its log says why"
