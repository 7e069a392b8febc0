"""Run where there is no network but loopback: starts the bento, asks it, and proves that nothing else is reached."""

from __future__ import annotations

import asyncio
import socket

from tests.running_bento import serving, until_health
from torchless.clients.embedding import EmbeddingClient


async def main() -> None:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=2)  # TEST-NET-1, RFC 5737
    except OSError as error:
        if error.errno is None or isinstance(error, TimeoutError):
            raise SystemExit(f"the network is not cut off: {error!r}") from error
    else:
        raise SystemExit("the network is not cut off")
    with serving("embedding") as bento:
        async with EmbeddingClient(bento.address) as client:
            await until_health(client, bento, ready=True)
            answer = await client.embed(["no network"])
    print(f"answered {answer.vectors.shape[1]} dimensions, no route out")


if __name__ == "__main__":
    asyncio.run(main())
