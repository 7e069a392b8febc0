"""`torchless up` with programs that stand in for its services.

python -m tests.unit.cli.stand_in_stack STATE NAME=PORT[,ARGUMENT]...
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

from torchless.cli.console import console
from torchless.cli.errors import StackError
from torchless.cli.ports import Port
from torchless.cli.services import Service
from torchless.cli.stack import Stack
from torchless.cli.up import up

PROGRAM = Path(__file__).with_name("stand_in.py")


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def service(description: str) -> Service:
    name, _, arguments = description.partition("=")
    port, *rest = arguments.split(",")
    return Service(
        name=name,
        command=(sys.executable, str(PROGRAM), port, *rest),
        ready=partial(answers, int(port)),
        ports=(Port(int(port), name),),
        urls={"TCP": f"127.0.0.1:{port}"},
    )


def main() -> None:
    folder, *descriptions = sys.argv[1:]
    stack = Stack(
        [service(d) for d in descriptions],
        Path(folder),
        directory=Path.cwd(),
        grace_s=3,
        start_retries=1,
        slow_after_s=1,
    )
    try:
        up(stack, "http://127.0.0.1:3000", console())
    except StackError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
