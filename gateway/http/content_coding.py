"""Decodes compressed request bodies (RFC 9110, section 8.4.1), piece by piece.

A few kilobytes can decode to gigabytes. So decoding stands before the reader that enforces the limits. It hands over
one small piece at a time, and a body past its limit is refused before more of it is decoded.
"""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import Request
from starlette.types import Message, Receive

from gateway.http.exceptions import UndecodableBodyError, unsupported_coding

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's number for the format of each coding; `deflate` is the zlib format of RFC 1950."""
CODINGS = ("gzip", "deflate")
"""The codings that errors name."""
PIECE_BYTES = 256 * 1024
"""Largest decoded piece: about a millisecond of work."""
_MOST_OVERHEAD = 1024 * 1024
"""How many bytes longer than its content a body may be: the formats can hold any number of empty blocks."""


def decoded(request: Request) -> Request:
    """The request as its handler reads it: with the body decoded.

    Reading it raises `UndecodableBodyError` if the body does not hold what its header says.

    Raises:
        HTTPError: 415, for a coding other than gzip and deflate, or several of them.
    """
    given = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    codings = [coding for each in given if (coding := each.strip()) not in {"", "identity"}]
    if not codings:
        return request
    if len(codings) > 1 or codings[0] not in _WINDOW_BITS:
        raise unsupported_coding(CODINGS)
    return Request(request.scope, _DecodingReceive(request.receive, _WINDOW_BITS[codings[0]]))


class _DecodingReceive:
    """An ASGI `receive` whose body messages are the decoded pieces of those of another.

    Args:
        receive: The other.
        window_bits: zlib's number for the format.
    """

    def __init__(self, receive: Receive, window_bits: int) -> None:
        self._receive = receive
        self._window_bits = window_bits
        self._zlib = zlib.decompressobj(window_bits)
        self._undecoded = b""
        self._holds_more = False
        self._arrives_more = True
        self._ended = False
        self._overhead = 0

    async def __call__(self) -> Message:
        """The next message; after the body's end, those of the other `receive`.

        Raises:
            UndecodableBodyError: The body is damaged, ends early, or is mostly empty blocks.
        """
        if self._ended:
            return await self._receive()
        if self._holds_more:
            await asyncio.sleep(0)  # other requests get their turn between two pieces
        else:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._undecoded = message.get("body", b"")
            self._overhead += len(self._undecoded)
            self._arrives_more = message.get("more_body", False)
        piece = self._next_piece()
        if not self._holds_more and not self._arrives_more:
            if not self._zlib.eof:
                raise UndecodableBodyError
            self._ended = True
        return {"type": "http.request", "body": piece, "more_body": not self._ended}

    def _next_piece(self) -> bytes:
        if self._zlib.eof and self._undecoded:
            self._zlib = zlib.decompressobj(self._window_bits)  # gzip files may be joined (RFC 1952, section 2.2)
        try:
            piece = self._zlib.decompress(self._undecoded, PIECE_BYTES)
        except zlib.error:
            raise UndecodableBodyError from None
        self._undecoded = self._zlib.unconsumed_tail or self._zlib.unused_data
        # A full piece may have a rest inside zlib, even when all input was taken.
        self._holds_more = bool(self._undecoded) or (len(piece) == PIECE_BYTES and not self._zlib.eof)
        self._overhead -= len(piece)
        if self._overhead > _MOST_OVERHEAD:
            raise UndecodableBodyError
        return piece
