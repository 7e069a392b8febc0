"""The steady load of most cases: callers of the gateway and of the typed client, all counted together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.resilience.load import REFUSALS, GrpcTarget, HttpTarget, arrivals, clients
from tests.resilience.outcomes import Tally
from tests.resilience.texts import FreshTexts, Texts
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.settings import ClientSettings
from torchless.contracts.errors import ErrorKind

PAUSE_S = 0.2
"""Time that a client thinks between two requests, in seconds."""
_OUT = REFUSALS | {kind for kind in ErrorKind if kind.policy.service_down}


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much of what."""

    rate: float
    """Requests a second that arrive at the gateway, whatever becomes of those before."""
    clients: int
    """Clients that send one request after another, half of them to the gateway and half over gRPC."""
    deadline_s: float = 5.0
    """Deadline of each request, in seconds."""
    outage: bool = False
    """Whether the case makes the service unavailable, so that an immediate error counts as refused."""

    @asynccontextmanager
    async def flowing(
        self, tally: Tally, gateway_port: int, embedding: dict[str, Any], texts: Texts | None = None
    ) -> AsyncIterator[None]:
        """Sends it while the block runs; what is on its way at its end is waited for.

        Args:
            tally: Where each request is counted.
            gateway_port: The gateway's.
            embedding: The gateway's settings of the embedding service, which hold for the typed client as well.
            texts: The requested texts; unless given, new texts all the time.
        """
        refused = _OUT if self.outage else REFUSALS
        async with AsyncExitStack() as stack:
            for prefix in ("steady", "http"):
                target = HttpTarget(gateway_port, deadline_s=self.deadline_s, refused_with_503=self.outage)
                asked = texts or FreshTexts(prefix)
                if prefix == "steady":
                    await stack.enter_async_context(arrivals(target, asked, tally, self.rate))
                else:
                    count = self.clients // 2
                    await stack.enter_async_context(clients(target, asked, tally, count, pause_s=PAUSE_S))
            client = EmbeddingClient(ClientSettings(**embedding))
            direct = GrpcTarget(client, deadline_s=self.deadline_s, refused_kinds=refused)
            asked = texts or FreshTexts("grpc")
            await stack.enter_async_context(clients(direct, asked, tally, self.clients // 2, pause_s=PAUSE_S))
            yield


def addresses(bentos: Sequence[Any]) -> list[str]:
    """Where they listen."""
    return [bento.address for bento in bentos]
