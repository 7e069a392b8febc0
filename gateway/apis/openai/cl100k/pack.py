"""Makes `ranks.xz` from OpenAI's published file: `python -m gateway.apis.openai.cl100k.pack cl100k_base.tiktoken`."""

from __future__ import annotations

import base64
import hashlib
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path

PUBLISHED_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""Of https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"""


def published_form(tokens: Sequence[bytes]) -> bytes:
    """The file as OpenAI publishes it: a line an id, base64 of the token's bytes, a space, the id."""
    return b"".join(base64.b64encode(token) + b" %d\n" % index for index, token in enumerate(tokens))


def pack(published: bytes) -> bytes:
    """Content of `ranks.xz` for the published file.

    Raises:
        ValueError: It is not that file.
    """
    if hashlib.sha256(published).hexdigest() != PUBLISHED_SHA256:
        raise ValueError("this is not the cl100k_base file that OpenAI publishes: its SHA-256 differs")
    tokens = [base64.b64decode(line.split()[0]) for line in published.splitlines()]
    packed = bytes(len(token) for token in tokens) + b"".join(tokens)
    return lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    Path(__file__).with_name("ranks.xz").write_bytes(pack(Path(sys.argv[1]).read_bytes()))
