"""The path of every request through the gateway: admit, read, validate, work, answer, whatever goes wrong.

Routes hand over a handler that takes a validated body and a `Call` and returns a response. FastAPI describes the
routes; it does not read bodies, because pydantic reads JSON straight from the bytes and a body limit comes first.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.capabilities.request import RequestContext
from gateway.http.body_variants import Form, Reading, only, told_apart
from gateway.http.bulkheads import Compartment
from gateway.http.closing_response import LastAnswer
from gateway.http.disconnect import cancelled_by_disconnect
from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import BodyTooLargeError, BodyTooLateError, GatewayDefectError, NoRoomForBodyError
from gateway.http.json_body import Body
from gateway.http.openapi import described_bodiless, described_post
from gateway.http.provenance_headers import write_provenance_headers
from gateway.http.request_headers import request_context
from gateway.services import Services
from gateway.settings import GatewaySettings
from torchless.contracts.errors import TorchlessError

logger = logging.getLogger(__name__)
_HUNG_UP = 499
"""Seen by nobody but the metrics."""


class DirectRoute(APIRoute):
    """A route whose endpoint reads its request itself, so that FastAPI looks for nothing to inject."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint as it is."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler works with, beside the body."""

    services: Services
    """The services."""
    context: RequestContext
    """Id, trace and deadline of the request."""
    path_params: Mapping[str, Any]
    """Parts of the path that the route names."""
    query: Mapping[str, str]
    """What stands behind the path's question mark; of a name that stands there twice, the last value."""
    user_agent: str
    """What the client calls itself; empty: nothing."""


Deadline = Callable[[GatewaySettings], float]
"""Seconds that a request has whose caller names none."""


def _usual(settings: GatewaySettings) -> float:
    return settings.limits.deadline_s


def post(
    router: APIRouter,
    *paths: str,
    compartment: Compartment,
    family: ErrorFamily,
    body: type[Body],
    answer: Any,
    examples: Mapping[str, Any],
    deadline: Deadline = _usual,
) -> Callable[[Callable[[Body, Call], Coroutine[Any, Any, Response]]], Callable[..., Any]]:
    """Registers a handler for POST `paths`. Its docstring describes the route.

    Args:
        router: Where.
        paths: The paths, the first one canonical.
        compartment: Whose place it takes, and whose room for its body.
        family: How errors look.
        body: What the route takes.
        answer: What it answers, for the API's description.
        examples: Bodies by what they show.
        deadline: Time of a request whose caller names none.
    """

    def register(handler: Callable[[Body, Call], Coroutine[Any, Any, Response]]) -> Callable[..., Any]:
        form = Form(family, body, answer, examples, handler)
        arrival = _Arrival(compartment, only(form), deadline)
        _add_post(router, paths, about=handler, forms=[form], family=family, arrival=arrival)
        return handler

    return register


def post_told_apart(
    router: APIRouter,
    *paths: str,
    compartment: Compartment,
    family: ErrorFamily,
    forms: Mapping[str, Form],
    about: Callable[..., Any],
    deadline: Deadline = _usual,
) -> None:
    """Registers handlers for POST `paths`, which several APIs share.

    Args:
        router: Where.
        paths: The paths, the first one canonical.
        compartment: Whose place it takes, and whose room for its body.
        family: How errors look before a body is known to be of a form.
        forms: By the name of the field that tells a body of theirs.
        about: Its name and docstring describe the route.
        deadline: Time of a request whose caller names none.
    """
    arrival = _Arrival(compartment, told_apart(forms), deadline)
    _add_post(router, paths, about=about, forms=list(forms.values()), family=family, arrival=arrival)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """How a body is taken in."""

    compartment: Compartment
    read: Callable[[bytes], Reading]
    deadline: Deadline


def _add_post(
    router: APIRouter,
    paths: Sequence[str],
    *,
    about: Callable[..., Any],
    forms: Sequence[Form],
    family: ErrorFamily,
    arrival: _Arrival,
) -> None:
    async def endpoint(request: Request) -> Response:
        return await _answered(request, family, lambda: _work_on_body(request, arrival), asks_for_key=True)

    for path in paths:
        router.add_api_route(path, endpoint, **described_post(path, about, family=family, forms=forms))


def bodiless(
    router: APIRouter,
    *paths: str,
    compartment: Compartment | None,
    family: ErrorFamily,
    answer: Any,
    statuses: tuple[int, ...] = (),
    also_answered_with: tuple[int, ...] = (),
    head: bool = False,
    open_to_all: bool = False,
    query: type[BaseModel] | None = None,
    method: str,
) -> Callable[[Callable[[Call], Awaitable[Response]]], Callable[..., Any]]:
    """Registers a handler for `paths` and a method that takes no body.

    Args:
        router: Where.
        paths: The paths, the first one canonical.
        compartment: Whose place it takes; None: none, because it must be answered however busy the gateway is.
        family: How errors look.
        answer: What it answers, for the API's description.
        statuses: Those that errors of its may have, besides 401, 500 and that of a malformed header.
        also_answered_with: Statuses besides 200 that its answer may have.
        head: HEAD gets the same status and headers; uvicorn leaves the body out.
        open_to_all: No key is asked for.
        query: What may stand behind the path's question mark, for the API's description.
        method: The method.
    """

    def register(handler: Callable[[Call], Awaitable[Response]]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            async def work() -> Response:
                return await _work_without_body(request, handler, compartment)

            return await _answered(request, family, work, asks_for_key=not open_to_all)

        for path in paths:
            described = described_bodiless(
                path,
                handler,
                family=family,
                answer=answer,
                statuses=statuses,
                also_answered_with=also_answered_with,
                open_to_all=open_to_all,
                query=query,
            )
            router.add_api_route(path, endpoint, methods=[method], **described)
            if head:
                router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return handler

    return register


get = partial(bodiless, method="GET")
delete = partial(bodiless, method="DELETE")


async def _answered(
    request: Request, family: ErrorFamily, work: Callable[[], Awaitable[Response]], *, asks_for_key: bool
) -> Response:
    try:
        if asks_for_key:
            _services(request).keys.check(request.scope)
        return await work()
    except (BodyTooLargeError, BodyTooLateError, NoRoomForBodyError) as error:
        return LastAnswer(family.answer(error))
    except TorchlessError as error:
        return family.answer(error)
    except ClientDisconnect:
        return Response(status_code=_HUNG_UP)
    except Exception as error:
        # The message may hold what the caller sent, so only its type and the places are logged.
        logger.error(
            "request %s failed: %s\n%s",
            request.state.request_id,
            type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)),
        )
        return family.answer(GatewayDefectError())


async def _work_without_body(
    request: Request, handler: Callable[[Call], Awaitable[Response]], compartment: Compartment | None
) -> Response:
    call = _call(request, _usual)
    with nullcontext() if compartment is None else call.services.admission.place(compartment):
        if compartment is None or request.method == "DELETE":
            # Nothing is computed; and whoever deletes and hangs up as it ends wants it done all the same.
            return await _told(call, handler)
        return await cancelled_by_disconnect(request.receive, _told(call, handler))


async def _work_on_body(request: Request, arrival: _Arrival) -> Response:
    call, compartment = _call(request, arrival.deadline), arrival.compartment
    with call.services.admission.place(compartment), call.services.body_limit.room(compartment) as reader:
        try:
            async with asyncio.timeout(call.context.deadline.timeout_s):
                raw = await reader.read(request.scope, request.receive)
        except TimeoutError as error:
            raise BodyTooLateError from error
        reading = arrival.read(raw)

        async def work() -> Response:
            handler = partial(reading.form.handler, reading.body())
            return await cancelled_by_disconnect(request.receive, _told(call, handler))

        # From here on errors look as the form has it.
        return await _answered(request, reading.form.family, work, asks_for_key=False)


async def _told(call: Call, handler: Callable[[Call], Awaitable[Response]]) -> Response:
    """The answer of `handler`, which says how it came about."""
    response = await handler(call)
    write_provenance_headers(call.context.provenance, response.headers)
    return response


def _call(request: Request, deadline: Deadline) -> Call:
    services = _services(request)
    settings = services.settings
    context = request_context(request.scope, settings.limits, deadline(settings))
    return Call(services, context, request.path_params, request.query_params, request.headers.get("user-agent", ""))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
