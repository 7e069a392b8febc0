"""Registers routes, and takes each request along its path: identity, admission, body, handler, answer or error.

A family's `routes.py` declares everything about a route where it registers the handler: paths, scope, bulkhead, body,
answer and default deadline. The OpenAPI document is made from the same declarations. A handler only translates, and
calls a use case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.capabilities.request import RequestContext
from gateway.http.bodies import BoundedBody
from gateway.http.closing_response import ClosingResponse
from gateway.http.content_coding import decoded
from gateway.http.disconnect import cancelled_by_disconnect
from gateway.http.error_family import ErrorFamily
from gateway.http.exceptions import GatewayDefectError, UnreadBodyError
from gateway.http.headers import request_context, write_provenance_headers
from gateway.http.identity import may_see_addresses, require_scope
from gateway.http.json_body import Body, BodyVariant, Chooser, ParsedBody, by_field, require_json, several, single
from gateway.http.openapi import Operation
from gateway.services import Services
from gateway.settings import AccessScope, GatewaySettings
from torchless.contracts.errors import TorchlessError
from torchless.telemetry.request_log import CANCELLED


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler works with, besides the body."""

    services: Services
    """The services."""
    context: RequestContext
    """Id, trace, deadline and tenant of the request."""
    path_params: Mapping[str, Any]
    """Parts of the path that the route names."""
    query: Mapping[str, str]
    """Query parameters; of a name that occurs twice, the last value."""
    sees_addresses: bool
    """Whether the caller may learn the addresses of the services."""
    user_agent: str
    """The client's User-Agent header; empty: none."""


Limit = Callable[[GatewaySettings], float]
"""A limit of a route, read from the settings in force when a request arrives."""
Handler = Callable[[Call], Awaitable[Response]]
BodyHandler = Callable[[Body, Call], Coroutine[Any, Any, Response]]
StreamHandler = Callable[[BoundedBody, Call], Awaitable[Response]]
H = TypeVar("H", bound=Callable[..., Awaitable[Response]])


def _default_deadline(settings: GatewaySettings) -> float:
    return settings.limits.deadline_s


def _default_body_mib(settings: GatewaySettings) -> float:
    return settings.limits.body_mib


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a route declares about its requests."""

    family: ErrorFamily
    scope: AccessScope | None
    bulkhead: str | None
    deadline: Limit = _default_deadline


class Routes:
    """The routes of one API family.

    Args:
        family: How the family answers errors.
        prefixes: First parts of the paths whose errors it answers where no route has the path.
    """

    def __init__(self, family: ErrorFamily, *prefixes: str) -> None:
        self.family = family
        self.prefixes = prefixes
        self.routes: list[Route] = []
        """In the order in which they are matched."""
        self.operations: list[Operation] = []
        """How the OpenAPI document describes them."""

    def post(
        self,
        *paths: str,
        scope: AccessScope,
        bulkhead: str,
        body: type[Body],
        answer: Any,
        examples: Mapping[str, Any],
        deadline: Limit = _default_deadline,
    ) -> Callable[[BodyHandler[Body]], BodyHandler[Body]]:
        """Registers a handler for POST requests with one kind of JSON body. Its docstring describes the route.

        Args:
            paths: The paths, the canonical one first.
            scope: The scope that a caller needs.
            bulkhead: Whose share of the worker's capacity a request takes.
            body: The body's model.
            answer: The answer's type, for the OpenAPI document.
            examples: Example bodies by what they show.
            deadline: Seconds that a request may take when its caller sets no deadline.
        """

        def register(handler: BodyHandler[Body]) -> BodyHandler[Body]:
            variant = BodyVariant(self.family, body, answer, examples, handler)
            rules = _Rules(self.family, scope, bulkhead, deadline)
            self._add_post(paths, handler, rules, single(variant), [variant])
            return handler

        return register

    def post_variants(
        self,
        *paths: str,
        scope: AccessScope,
        bulkhead: str,
        variants: Mapping[str, BodyVariant],
        about: Callable[..., Any],
        choose: Chooser = by_field,
        deadline: Limit = _default_deadline,
    ) -> None:
        """Registers handlers for POST requests to paths that several APIs share.

        Arguments are those of `post`, and `variants`, each API's body by the name of a field that only this body has,
        unless `choose` picks them otherwise; `about`, whose name and docstring describe the route.
        """
        rules = _Rules(self.family, scope, bulkhead, deadline)
        self._add_post(paths, about, rules, several(variants, choose), list(variants.values()))

    def post_stream(
        self,
        *paths: str,
        scope: AccessScope,
        bulkhead: str,
        media_type: str,
        answer: Any,
        deadline: Limit = _default_deadline,
        body_mib: Limit = _default_body_mib,
    ) -> Callable[[StreamHandler], StreamHandler]:
        """Registers a handler for POST requests whose body is read piece by piece, such as uploads.

        Arguments are those of `post`, and `media_type`, the body's, for the OpenAPI document; `body_mib`, the largest
        body in MiB.
        """

        def register(handler: StreamHandler) -> StreamHandler:
            rules = _Rules(self.family, scope, bulkhead, deadline)
            errors = {status: [self.family.schema] for status in self.family.statuses}
            for path in paths:
                operation = self._operation("POST", path, handler, rules, answers={200: [answer], **errors})
                work = partial(_run_with_stream, handler=handler, body_mib=body_mib)
                self._add(operation.with_stream(media_type), rules, work)
            return handler

        return register

    def get(
        self,
        *paths: str,
        scope: AccessScope | None,
        bulkhead: str | None,
        answer: Any,
        statuses: Sequence[int] = (),
        also_answered_with: Sequence[int] = (),
        query: type[BaseModel] | None = None,
        method: str = "GET",
    ) -> Callable[[H], H]:
        """Registers a handler for GET requests. Its docstring describes the route.

        HEAD gets the same status and headers; uvicorn leaves the body out.

        Args:
            paths: The paths, the canonical one first.
            scope: The scope that a caller needs; None: the route is open to everyone.
            bulkhead: Whose share of the worker's capacity a request takes; None: none, because the route must answer
                however busy the gateway is.
            answer: The answer's type, for the OpenAPI document.
            statuses: Statuses of errors, besides 401, 403, 500 and that of a malformed header.
            also_answered_with: Statuses besides 200 that the answer may have.
            query: The query parameters, for the OpenAPI document.
            method: The method.
        """

        def register(handler: H) -> H:
            rules = _Rules(self.family, scope, bulkhead)
            # A header can be malformed without a body, too.
            errors = {self.family.malformed_status, 500, *statuses}
            answers = {status: [self.family.schema] for status in errors}
            answers |= {status: [answer] for status in (200, *also_answered_with)}
            for path in paths:
                operation = self._operation(method, path, handler, rules, answers=answers, query=query)
                self._add(operation, rules, partial(_run_without_body, handler=handler))
            return handler

        return register

    def delete(
        self, *paths: str, scope: AccessScope, bulkhead: str, answer: Any, statuses: Sequence[int] = ()
    ) -> Callable[[H], H]:
        """Registers a handler for DELETE requests; arguments as for `get`."""
        return self.get(*paths, scope=scope, bulkhead=bulkhead, answer=answer, statuses=statuses, method="DELETE")

    def _add_post(
        self,
        paths: Sequence[str],
        about: Callable[..., Any],
        rules: _Rules,
        parse: Callable[[bytes], ParsedBody],
        variants: Sequence[BodyVariant],
    ) -> None:
        families = {family.name: family for family in (rules.family, *(variant.family for variant in variants))}
        answers: dict[int, list[Any]] = {200: [variant.answer for variant in variants]}
        for family in families.values():
            for status in family.statuses:
                answers.setdefault(status, []).append(family.schema)
        for path in paths:
            operation = self._operation("POST", path, about, rules, answers=answers).with_json(variants)
            self._add(operation, rules, partial(_run_with_body, parse=parse))

    def _operation(
        self,
        method: str,
        path: str,
        about: Callable[..., Any],
        rules: _Rules,
        *,
        answers: Mapping[int, Sequence[Any]],
        query: type[BaseModel] | None = None,
    ) -> Operation:
        if rules.scope is not None:
            answers = {**answers, **dict.fromkeys((401, 403), answers.get(401, [rules.family.schema]))}
        return Operation(method, path, about, rules.family.name, rules.scope, dict(sorted(answers.items())), query)

    def _add(self, operation: Operation, rules: _Rules, work: _Work) -> None:
        endpoint = _Endpoint(rules, work)
        self.routes.append(Route(operation.path, endpoint, methods=[operation.method], name=operation.id))
        self.operations.append(operation)


_Work = Callable[[Request, Call, _Rules], Awaitable[Response]]


class _Endpoint:
    """Answers the requests of one route."""

    def __init__(self, rules: _Rules, work: _Work) -> None:
        self._rules = rules
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await _handle_errors(request, self._rules.family, lambda: self._admit(request))
        await response(scope, receive, send)

    async def _admit(self, request: Request) -> Response:
        rules = self._rules
        principal = require_scope(request.scope, rules.scope)
        services: Services = request.app.state.services
        settings = services.settings
        context = request_context(request.scope, settings.limits, rules.deadline(settings), principal.tenant)
        request.scope["state"]["context"] = context
        sees_addresses, agent = may_see_addresses(request.scope), request.headers.get("user-agent", "")
        call = Call(services, context, request.path_params, request.query_params, sees_addresses, agent)
        return await self._work(request, call, rules)


async def _handle_errors(request: Request, family: ErrorFamily, work: Callable[[], Awaitable[Response]]) -> Response:
    """The response of `work`, or the family's response to its error."""
    try:
        return await work()
    except UnreadBodyError as error:
        request.state.error = error
        return ClosingResponse(family.answer(error))
    except TorchlessError as error:
        request.state.error = error
        return family.answer(error)
    except ClientDisconnect:
        return Response(status_code=CANCELLED)
    except Exception as error:
        request.state.error = error
        return family.answer(GatewayDefectError())


async def _run_without_body(request: Request, call: Call, rules: _Rules, *, handler: Handler) -> Response:
    if rules.bulkhead is None:
        return await _with_provenance(request, call, handler(call))
    with call.services.admission.slot(rules.bulkhead):
        work = _with_provenance(request, call, handler(call))
        # A caller that deletes and disconnects still wants it done.
        return await (work if request.method == "DELETE" else cancelled_by_disconnect(request.receive, work))


async def _run_with_body(
    request: Request, call: Call, rules: _Rules, *, parse: Callable[[bytes], ParsedBody]
) -> Response:
    assert rules.bulkhead is not None  # noqa: S101  # every POST route has one
    require_json(request.headers)
    request, limits, admission = decoded(request), call.services.body_limit, call.services.admission
    with limits.body(request, rules.bulkhead, deadline=call.context.deadline) as body:
        raw = await body.read_all()
        # Only now: a client that sends its body slowly takes no slot.
        with admission.slot(rules.bulkhead):
            parsed = parse(raw)

            def work() -> Awaitable[Response]:
                answer = _with_provenance(request, call, parsed.variant.handler(parsed.validated(), call))
                return cancelled_by_disconnect(request.receive, answer)

            # From here on, errors are those of the variant's family.
            return await _handle_errors(request, parsed.variant.family, work)


async def _run_with_stream(
    request: Request, call: Call, rules: _Rules, *, handler: StreamHandler, body_mib: Limit
) -> Response:
    assert rules.bulkhead is not None  # noqa: S101  # every POST route has one
    request, admission, mib = decoded(request), call.services.admission, body_mib(call.services.settings)
    reading = call.services.body_limit.body(request, rules.bulkhead, deadline=call.context.deadline, mib=mib)
    with admission.slot(rules.bulkhead), reading as body:
        work = _with_provenance(request, call, handler(body, call))
        answer = await _handle_errors(request, rules.family, lambda: cancelled_by_disconnect(body.next_message, work))
        # What was not read is still on its way.
        return answer if body.complete or isinstance(answer, ClosingResponse) else ClosingResponse(answer)


async def _with_provenance(request: Request, call: Call, answer: Awaitable[Response]) -> Response:
    response, provenance = await answer, call.context.provenance
    write_provenance_headers(provenance, response.headers)
    if provenance.timings.inference_ms:
        call.services.metrics.queue_seconds.observe(provenance.timings.queue_ms / 1000)
    if provenance.truncated:
        call.services.metrics.truncated.labels(request.scope["route"].path).inc(provenance.truncated)
    return response
