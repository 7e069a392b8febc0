"""Rules for the head of a request that llhttp, which parses it, leaves to the server."""

from __future__ import annotations

import re
from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields with names in lower case."""
MAX_HEADERS = 100
"""Most header fields of one request; the limit of Apache (`LimitRequestFields`)."""
_VERSIONS = frozenset({"1.0", "1.1"})
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""`uri-host [ ":" port ]` (RFC 9110, section 7.2; RFC 3986, section 3.2.2)."""


class RefusedRequestError(Exception):
    """A request that is answered before the application sees it; the connection closes.

    Args:
        status: The HTTP status of the answer.
        message: The answer's text.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check_head(method: bytes, version: str, headers: Headers) -> None:
    """Refuses heads that servers may read in different ways, and what this server does not implement.

    Raises:
        RefusedRequestError: 400 (RFC 9112, sections 3.2 and 6.1), 501 (RFC 9110, section 9.3.6; RFC 9112, section 6.1)
            or 505 (RFC 9110, section 15.6.6).
    """
    if version not in _VERSIONS:
        raise RefusedRequestError(505, "use HTTP/1.1; this server does not support the request's version of HTTP")
    if method == b"CONNECT":
        raise RefusedRequestError(501, "CONNECT is not supported; this server is not a proxy")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):
        raise RefusedRequestError(400, f"send exactly one Host header; the request has {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise RefusedRequestError(400, "the Host header must be a host name or address, and a port if it has one")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and version == "1.0":
        raise RefusedRequestError(400, "HTTP/1.0 has no Transfer-Encoding; use HTTP/1.1 or Content-Length")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise RefusedRequestError(501, "send the Transfer-Encoding chunked alone; no other is supported")


def is_websocket_handshake(method: str, version: str, headers: Headers) -> bool:
    """Whether a request that asks for an upgrade can open a WebSocket (RFC 6455, section 4.1): a GET without a body."""
    names = {name for name, _ in headers}
    has_body = b"content-length" in names or b"transfer-encoding" in names
    return method == "GET" and version == "1.1" and not has_body


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request as bytes, without its `Upgrade`, which a server may ignore (RFC 9110, section 7.8)."""
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode())]
    lines += [b"%s: %s" % field for field in headers if field[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
