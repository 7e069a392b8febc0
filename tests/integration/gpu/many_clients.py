"""Run as a program: many clients at once, each with a separate connection, asking one GPU service for a lease.

    python -m tests.integration.gpu.many_clients ADDRESS CLIENTS MEMORY_MB IDEMPOTENCY_KEY

Prints the ids of what they were given, and the kinds of the errors, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from torchless.clients.gpu import GPUClient
from torchless.contracts.errors import TorchlessError


async def main(address: str, clients: int, memory_mb: int, key: str) -> None:
    given: list[str] = []
    refused: list[str] = []

    async def ask() -> None:
        async with GPUClient(address) as client:
            try:
                given.append((await client.allocate(memory_mb, "one of many", idempotency_key=key)).id)
            except TorchlessError as error:
                refused.append(error.kind.value)

    await asyncio.gather(*(ask() for _ in range(clients)))
    print(json.dumps({"given": given, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
