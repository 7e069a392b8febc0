"""Authentication by API keys.

Clients send a key in one of three ways: `Authorization: Bearer <key>` (RFC 6750; clients of OpenAI, Cohere, Jina and
litellm), `Authorization: <key>` (llama-index's for text-embeddings-inference), or `X-Api-Key: <key>`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import Scope

from gateway.http.identity import Authenticator, NoAuthentication, Principal
from gateway.settings import APIKey
from torchless.contracts.errors import ErrorKind, TorchlessError


def authenticator(keys: Sequence[APIKey]) -> Authenticator:
    """Requires one of `keys`; without any, requires nothing."""
    return APIKeyAuthenticator(keys) if keys else NoAuthentication()


class APIKeyAuthenticator:
    """Accepts requests that carry one of several keys.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: Sequence[APIKey]) -> None:
        self._keys = [
            (each.key.get_secret_value().encode(), Principal(each.name, each.tenant, frozenset(each.scopes)))
            for each in keys
        ]

    async def authenticate(self, scope: Scope) -> Principal:
        """The principal of the key that the request in `scope` carries.

        Raises:
            TorchlessError: UNAUTHENTICATED, when it carries no key, or none of these.
        """
        sent = sent_keys(scope)
        if not sent:
            raise _unauthenticated("an API key is required: send it as `Authorization: Bearer <key>` or as `X-Api-Key`")
        # Compares each pair in full, so that the time does not reveal how close a key came.
        found = [principal for one in sent for key, principal in self._keys if hmac.compare_digest(one, key)]
        if not found:
            raise _unauthenticated("the API key is not valid")
        return found[0]


def sent_keys(scope: Scope) -> list[bytes]:
    """The keys that the request in `scope` carries, as they were sent.

    There may be several, because a proxy can set `Authorization` for its own ends next to the caller's `X-Api-Key`.
    """
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            found.append(rest if scheme.lower() == b"bearer" else value)
        elif name == b"x-api-key":
            found.append(value)
    return [key.strip() for key in found if key.strip()]


def _unauthenticated(message: str) -> TorchlessError:
    return TorchlessError(ErrorKind.UNAUTHENTICATED, message)
