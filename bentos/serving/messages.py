"""Requests that are no message of their method: they are answered as invalid input.

gRPC parses a request before any interceptor or servicer sees it. When parsing fails, grpcio logs a traceback and
answers UNKNOWN with the name of a Python class. So here parsing never fails: it returns `UNREADABLE`, which is refused
later, where a call can be answered.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

import grpc

from bentos.serving.calls import Context, abort
from torchless.contracts.errors import ErrorKind, TorchlessError

M = TypeVar("M")
UNREADABLE: Final = object()
"""A request that could not be parsed."""


def lenient(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """`parse`, which returns `UNREADABLE` instead of raising; a method without parsing takes all bytes."""
    if parse is None:
        return None

    def parse_leniently(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception:  # what is raised depends on protobuf's implementation
            return UNREADABLE

    return parse_leniently


def readable(request: M) -> M:
    """`request`, if it could be parsed.

    Raises:
        TorchlessError: INVALID_INPUT, if it could not.
    """
    if request is UNREADABLE:
        message = (
            "the request is not this method's protobuf message; generate the client from this service's .proto file"
        )
        raise TorchlessError(ErrorKind.INVALID_INPUT, message)
    return request


async def all_readable(requests: AsyncIterable[M]) -> AsyncIterator[M]:
    """The requests of a stream; raises as `readable`."""
    async for request in requests:
        yield readable(request)


def refusing_unreadable(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of a service that is not ours, such as reflection, which answers unreadable requests as ours do."""
    check = all_readable if handler.request_streaming else readable

    async def unary(request: Any, context: Context) -> Any:
        try:
            answer = behaviour(check(request), context)
            return await answer if inspect.isawaitable(answer) else answer
        except TorchlessError as error:
            await abort(context, error)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for answer in behaviour(check(request), context):
                yield answer
        except TorchlessError as error:
            await abort(context, error)

    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour: Any = getattr(handler, kind)
    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    # gRPC asks the same of a handler. One that streams without it writes its answers into the context.
    wrapped = stream if inspect.isasyncgenfunction(behaviour) else unary
    return make(wrapped, lenient(handler.request_deserializer), handler.response_serializer)  # type: ignore[no-any-return]
