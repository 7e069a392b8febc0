"""A connection to the gateway: uvicorn's, with limits on what a client may send, and how slowly.

docs/decisions/0024-http-connections.md has the differences to uvicorn, and why it is not h11.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Literal

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.http.request_head import (
    MAX_HEADERS,
    RefusedRequestError,
    check_head,
    is_websocket_handshake,
    without_upgrade,
)
from gateway.settings import HTTPSettings

_LINGER_S = 2.0
"""Longest time for which a refused client may go on sending before the connection closes."""
_MALFORMED = RefusedRequestError(400, "the request is not valid HTTP/1.1")


class Connection(HttpToolsProtocol):
    """One connection; made by uvicorn, which passes everything but `limits`.

    Args:
        limits: The limits, for as long as the connection lasts.
    """

    def __init__(self, limits: HTTPSettings, **given: Any) -> None:
        super().__init__(**given)
        self.timeout_keep_alive = limits.keep_alive_s  # type: ignore[assignment]  # any number of seconds will do
        self._limits = limits
        self._max_head = int(limits.head_kib * 1024)
        self._reading: Literal["nothing", "head", "body"] = "nothing"
        """What of a request has begun to arrive."""
        self._head_size = 0
        """Bytes of the request line and the header fields that were parsed, trailer included."""
        self._parsed_something = False
        self._unparsed = 0
        """Bytes since the parser last made something of them: an unfinished field, a trailer, empty lines."""
        self._upgrade_offered = False
        self._ended = False
        """Whether nothing more is read here: a request was refused, or the connection has become a WebSocket."""
        self._late: asyncio.TimerHandle | None = None
        self._begun: RequestResponseCycle | None = None
        """The newest request that the application has; `cycle` is the newest that has arrived."""

    # The transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        _abort_when_unread(transport, self._limits.stall_s)
        self._watch_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waiting, and tells the application that the client is gone."""
        super().connection_lost(exc)
        if self._begun is not None and self._begun is not self.cycle:
            # uvicorn told only the newest of several pipelined requests, which has not begun.
            self._begun.disconnected = True
            self._begun.message_event.set()
        self._unset_keepalive_if_required()
        self._stop_watching()

    def data_received(self, data: bytes) -> None:
        """Parses what has arrived; calls the methods below that begin with `on_`."""
        if self._ended:
            return
        self._unset_keepalive_if_required()
        self._parsed_something = False
        try:
            self._parse(data)
            self._unparsed = 0 if self._parsed_something else self._unparsed + len(data)
            self._check_size(self._unparsed)
        except httptools.HttpParserError as error:
            # Of an error in one of the methods below, the parser's error has it as its context.
            self._refuse(error.__context__ if isinstance(error.__context__, RefusedRequestError) else _MALFORMED)
        except RefusedRequestError as refused:
            self._refuse(refused)
        else:
            self._watch_client()

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                # After the head of a request with an Upgrade, httptools parses nothing more: the body would be lost.
                rest = rest[offer.args[0] :]
                if self._should_upgrade():
                    self._ended = True
                    self.handle_websocket_upgrade()
                    return
                self._parse_without_upgrade()

    def _parse_without_upgrade(self) -> None:
        """Begins the request again, as if it had no Upgrade; its body comes next."""
        method = self.parser.get_method()
        head = without_upgrade(method, self.url, self.scope["http_version"], self.headers)
        self._upgrade_offered = False
        self.parser = httptools.HttpRequestParser(self)
        # As in uvicorn: a request after one with `Connection: close` is no error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head)

    # Called by the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._reading = "head"
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request's target has arrived."""
        self._parsed_something = True
        super().on_url(url)
        self._head_size += len(url)
        if self._head_size > self._max_head:
            raise RefusedRequestError(414, f"the request's target is longer than {self._limits.head_kib:g} KiB")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head or of the trailer has arrived; those of a trailer count, but are left out."""
        self._parsed_something = True
        self._head_size += len(name) + len(value)
        self._check_size(self._head_size)
        if self._reading == "head":
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                raise RefusedRequestError(431, f"the request has more than {MAX_HEADERS} header fields; send fewer")

    def on_headers_complete(self) -> None:
        """The head is complete: the application gets the request, unless an Upgrade must be decided on first."""
        self._parsed_something = True
        method, version = self.parser.get_method(), self.parser.get_http_version()
        check_head(method, version, self.headers)
        if version == "1.0":
            self.expect_100_continue = False  # its clients know no 100 (RFC 9110, section 10.1.1)
        if self.parser.should_upgrade():
            self._upgrade_offered = True
            self.scope["method"] = method.decode("ascii")
            self.scope["http_version"] = version
            return
        super().on_headers_complete()
        self._reading = "body"

    def on_body(self, body: bytes) -> None:
        """A piece of the body has arrived."""
        self._parsed_something = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._upgrade_offered:
            return
        self._parsed_something = True
        self._reading = "nothing"
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._begun = cycle
        super()._start_asgi_task(cycle, app)

    def _check_size(self, size: int) -> None:
        if size > self._max_head:
            message = f"the request's head is larger than {self._limits.head_kib:g} KiB; send fewer or shorter headers"
            raise RefusedRequestError(431, message)

    def _should_upgrade(self) -> bool:
        """Whether to open a WebSocket: not while an earlier request is unanswered, whose answer comes first."""
        is_handshake = is_websocket_handshake(self.scope["method"], self.scope["http_version"], self.headers)
        return is_handshake and not self._answering and super()._should_upgrade()

    # Slow clients

    @property
    def _answering(self) -> bool:
        """Whether the application has a request that it has not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_client(self) -> None:
        """Limits the time for the rest of a request, unless the application, with its limits, reads it."""
        if self._answering or self._ended or self.transport.is_closing():
            self._stop_watching()
        elif self._reading == "nothing" and self.cycle is not None:
            # The body of an answered request has ended: the connection is idle only now.
            self._stop_watching()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif self._late is None:
            self._late = self.loop.call_later(self._limits.head_s, self._end_late_request)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_late_request(self) -> None:
        self._late = None
        if self._reading == "head":
            message = f"the request's head did not arrive within {self._limits.head_s:g} s"
            self._refuse(RefusedRequestError(408, message))
        else:
            self.transport.close()

    # Refused requests

    def _refuse(self, why: RefusedRequestError) -> None:
        """Answers `why` and closes the connection; first come the answers to earlier requests."""
        self.logger.info("A request was refused: %s", why.message)
        self._ended = True
        self._stop_watching()
        if self._reading == "body":
            self._refuse_body(why)
        elif self._answering:
            self.cycle.keep_alive = False
        else:
            self._answer_and_close(why)

    def _refuse_body(self, why: RefusedRequestError) -> None:
        """Ends a request that the application has, with an answer if there was none: its client has disconnected."""
        if not self._answering or self.cycle.response_started or self.pipeline:
            self.transport.close()
            return
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._answer_and_close(why)

    def _answer_and_close(self, why: RefusedRequestError) -> None:
        """Closes once the client does, or after a while.

        Closing with unread data resets the connection, and the client may lose the answer (RFC 9112, section 9.6).
        """
        text = why.message.encode()
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[why.status] + head + b"\r\n" + text)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)


def _abort_when_unread(transport: asyncio.Transport, after_s: float) -> None:
    """Lets the kernel abort a connection whose peer takes nothing for so long, or is gone (RFC 5482)."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, int(after_s * 1000))
