"""Routes for GPUs and leases on their memory."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from gateway.apis.gpu.errors import GPU
from gateway.apis.gpu.schemas import AllocationRequest, Devices, RenewalRequest, WatchQuery
from gateway.encoding.json import json_response
from gateway.http.headers import read_seconds
from gateway.http.openapi import MediaType
from gateway.http.server_sent_events import event_stream
from gateway.routing import Call, Routes
from gateway.services import GPU as GPU_SERVICE
from torchless.clients.gpu import Allocation, GPUClient, GPUStatus

routes = Routes(GPU, "/v1/gpu")
_UNAVAILABLE = (429, 503, 504)
_LEASE = "/v1/gpu/allocations/{allocation_id}"
_ALLOCATIONS = {
    "8 GiB for ten minutes": {"memory_mb": 8192, "holder": "nightly-training", "ttl_s": 600},
    "an exclusive device": {"memory_mb": 8192, "holder": "nightly-training", "exclusive": True},
}


@routes.get("/v1/gpu/status", scope="gpu:read", bulkhead="gpu", answer=GPUStatus, statuses=_UNAVAILABLE)
async def status(call: Call) -> Response:
    """The driver, the devices and the leases; without a GPU, the reason.

    The status is 200 with or without a GPU; see `available` and `unavailable_reason`.
    """
    return json_response(await _service(call).status(call.context.for_call()))


@routes.get("/v1/gpu/devices", scope="gpu:read", bulkhead="gpu", answer=Devices, statuses=_UNAVAILABLE)
async def devices(call: Call) -> Response:
    """The present devices; none without a GPU or its driver.

    Figures that a device or its driver does not report are null.
    """
    return json_response({"devices": await _service(call).devices(call.context.for_call())})


@routes.post(
    "/v1/gpu/allocations",
    scope="gpu:write",
    bulkhead="gpu",
    body=AllocationRequest,
    answer=Allocation,
    examples=_ALLOCATIONS,
)
async def allocate(body: AllocationRequest, call: Call) -> Response:
    """Leases memory on one or several devices, all of them or none.

    The lease is stored before it is answered. It ends at `expires` unless it is renewed.
    """
    lease = await _service(call).allocate(
        body.memory_mb,
        body.holder,
        device_count=body.device_count,
        exclusive=body.exclusive,
        tenant=call.context.tenant,
        ttl_s=body.ttl_s,
        idempotency_key=body.idempotency_key,
        pid=body.pid,
        device_uuids=body.device_uuids,
        context=call.context.for_call(),
    )
    return json_response(lease)


@routes.post(
    f"{_LEASE}/renew",
    scope="gpu:write",
    bulkhead="gpu",
    body=RenewalRequest,
    answer=Allocation,
    examples={"ten more minutes": {"ttl_s": 600}, "the same duration as before": {}},
)
async def renew(body: RenewalRequest, call: Call) -> Response:
    """Renews a lease."""
    lease = await _service(call).renew(_id(call), ttl_s=body.ttl_s, context=call.context.for_call())
    return json_response(lease)


@routes.delete(_LEASE, scope="gpu:write", bulkhead="gpu", answer=Allocation, statuses=(404, *_UNAVAILABLE))
async def release(call: Call) -> Response:
    """Releases a lease, and returns its last state."""
    return json_response(await _service(call).release(_id(call), call.context.for_call()))


@routes.get(
    "/v1/gpu/watch",
    scope="gpu:read",
    bulkhead="gpu",
    answer=MediaType("text/event-stream"),
    statuses=_UNAVAILABLE,
    query=WatchQuery,
)
async def watch(call: Call) -> Response:
    """Sends the status at once, and again after each change and each interval, as server-sent events named `status`.

    The data of each event is JSON: `status` as in `GET /v1/gpu/status`, `events` since the last message, and the number
    of events that were dropped because the client reads slowly (`events_dropped`). The stream does not end while the
    service runs; a failure sends an event named `error` first.
    """
    context = replace(call.context.for_call(), deadline=None)
    updates = _service(call).watch(interval_s=_interval(call), context=context)
    return await event_stream("status", updates, GPU, call.services.draining, deadline=call.context.deadline)


def _service(call: Call) -> GPUClient:
    return call.services.client(GPU_SERVICE)


def _id(call: Call) -> str:
    name: str = call.path_params["allocation_id"]
    return name


def _interval(call: Call) -> float | None:
    given = call.query.get("interval_s")
    return None if given is None else read_seconds("interval_s", given, finite=True)
