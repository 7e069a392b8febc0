"""The path of every request through the gateway: admit, read, validate, work, answer, whatever goes wrong.

Routes hand over a handler that takes a validated body and a `Call` and returns a response. FastAPI describes the
routes; it does not read bodies, because pydantic reads JSON straight from the bytes and a body limit comes first.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.disconnect import cancelled_by_disconnect
from gateway.errors import ErrorFamily
from gateway.faults import BodyTooLargeError, BodyTooLateError, GatewayDefectError, NoRoomForBodyError
from gateway.last_answer import LastAnswer
from gateway.openapi import described_get, described_post
from gateway.parsing import Body, parsed
from gateway.request_context import RequestContext, request_context
from gateway.services import Services
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


def post(
    router: APIRouter,
    *paths: str,
    family: ErrorFamily,
    body: type[Body],
    answer: Any,
    examples: Mapping[str, Any],
) -> Callable[[Callable[[Body, Call], Coroutine[Any, Any, Response]]], Callable[..., Any]]:
    """Registers a handler for POST `paths`. Its docstring describes the route.

    Args:
        router: Where.
        paths: The paths, the first one canonical.
        family: How errors look.
        body: What the route takes.
        answer: What it answers, for the API's description.
        examples: Bodies by what they show.
    """

    def register(handler: Callable[[Body, Call], Coroutine[Any, Any, Response]]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            return await _answered(request, family, _work_on_body(request, body, handler))

        for path in paths:
            router.add_api_route(
                path,
                endpoint,
                **described_post(path, handler, family=family, body=body, answer=answer, examples=examples),
            )
        return handler

    return register


def get(
    router: APIRouter, *paths: str, family: ErrorFamily, answer: Any, statuses: tuple[int, ...] = (), head: bool = False
) -> Callable[[Callable[[Call], Awaitable[Response]]], Callable[..., Any]]:
    """Registers a handler for GET `paths`; `statuses` are those besides 200 and 500 that it may answer.

    With `head`, HEAD gets the same status and headers; uvicorn leaves the body out.
    """

    def register(handler: Callable[[Call], Awaitable[Response]]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            async def work() -> Response:
                return await handler(_call(request))

            return await _answered(request, family, work())

        for path in paths:
            router.add_api_route(
                path, endpoint, **described_get(path, handler, family=family, answer=answer, statuses=statuses)
            )
            if head:
                router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return handler

    return register


async def _answered(request: Request, family: ErrorFamily, work: Awaitable[Response]) -> Response:
    try:
        return await work
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


async def _work_on_body(
    request: Request, model: type[Body], handler: Callable[[Body, Call], Coroutine[Any, Any, Response]]
) -> Response:
    call = _call(request)
    with call.services.admission, call.services.body_limit.room() as reader:
        try:
            async with asyncio.timeout_at(call.context.expires_at):
                raw = await reader.read(request.scope, request.receive)
        except TimeoutError as error:
            raise BodyTooLateError from error
        body = parsed(model, raw)
        return await cancelled_by_disconnect(request.receive, handler(body, call))


def _call(request: Request) -> Call:
    services: Services = request.app.state.services
    return Call(services, request_context(request.scope, services.settings.limits), request.path_params)
