"""Who may call: the key that a request carries, and the keys that are let in.

Clients send it in one of three ways: `Authorization: Bearer <key>` (RFC 6750; OpenAI's, Cohere's, Jina's, litellm's),
`Authorization: <key>` (llama-index's for text-embeddings-inference), or `X-Api-Key: <key>`. They are read here alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from pydantic import SecretStr
from starlette.types import Scope

from torchless.contracts.errors import ErrorKind, TorchlessError


def given_keys(scope: Scope) -> list[bytes]:
    """The keys that the request in `scope` carries, as they travelled; none where it carries none.

    Several, because a proxy may set `Authorization` for its own ends beside the caller's `X-Api-Key`.
    """
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            found.append(rest if scheme.lower() == b"bearer" else value)
        elif name == b"x-api-key":
            found.append(value)
    return [key.strip() for key in found if key.strip()]


class KeyRing:
    """The keys that are let in; without one, everybody is.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def check(self, scope: Scope) -> None:
        """Lets the request in `scope` pass.

        Raises:
            TorchlessError: UNAUTHENTICATED, when keys are asked for and it carries none of them.
        """
        if not self._keys:
            return
        given = given_keys(scope)
        if not given:
            raise _unauthenticated("a key is needed: send it as `Authorization: Bearer <key>` or as `X-Api-Key`")
        # Every key is compared with every other, and in full, so that the time says nothing about which one came near.
        if not any([hmac.compare_digest(one, other) for one in given for other in self._keys]):  # noqa: C419
            raise _unauthenticated("the key is not one that is let in here")


def _unauthenticated(message: str) -> TorchlessError:
    return TorchlessError(ErrorKind.UNAUTHENTICATED, message)
