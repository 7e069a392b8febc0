"""An asynchronous stream as an ordinary iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from torchless.clients.sync.background import BackgroundLoop, ending

F = TypeVar("F")
T = TypeVar("T")
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


class AnswerStream(Generic[T]):
    """Carries answers from the loop to the caller's thread, and frames the other way.

    The caller's thread waits for what the loop says; where the loop wants the next frame, that thread reads it. So
    frames are read in the thread that wants the answers, and no faster than the service takes them.

    Args:
        loop: Where the asynchronous stream runs.
    """

    def __init__(self, loop: BackgroundLoop) -> None:
        self._loop = loop
        self._said: SimpleQueue[_Answer[T] | _Ended | Callable[[], None]] = SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)

    def iterate(self, stream: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """What `stream` yields, begun with the first `next`; left early, or interrupted, it is cancelled and closed."""
        pumping = self._loop.begin(self._pump(stream))
        try:
            while True:
                said = self._said.get()
                if isinstance(said, _Answer):
                    self._loop.post(self._room.release)
                    yield said.value
                elif isinstance(said, _Ended):
                    if said.error is not None:
                        raise said.error
                    return
                else:
                    said()
        finally:
            pumping.cancel()  # without waiting: the garbage collector may be what closes a generator

    async def frames(self, frames: Iterable[F]) -> AsyncGenerator[F, None]:
        """The same frames in the loop; what reading them raises is raised here."""
        iterator = iter(frames)
        while True:
            wanted: asyncio.Future[list[F]] = asyncio.get_running_loop().create_future()
            self._said.put(partial(self._read, iterator, wanted))
            frame = await wanted
            if not frame:
                return
            yield frame[0]

    def _read(self, frames: Iterator[F], wanted: asyncio.Future[list[F]]) -> None:
        """Reads one frame, in the caller's thread: a list of it, or an empty one after the last."""
        try:
            self._loop.post(partial(_settle, wanted, [next(frames)]))
        except StopIteration:
            self._loop.post(partial(_settle, wanted, []))
        except Exception as error:
            self._loop.post(partial(_settle, wanted, error))

    async def _pump(self, stream: Callable[[], AsyncGenerator[T, None]]) -> None:
        try:
            async with aclosing(stream()) as answers:
                await self._room.acquire()
                async for answer in answers:
                    self._said.put(_Answer(answer))
                    await self._room.acquire()
        except asyncio.CancelledError:
            self._said.put(_Ended(ending()))  # nobody hears it but who did not leave
            raise
        except Exception as error:
            self._said.put(_Ended(error))
        else:
            self._said.put(_Ended(None))


def _settle(wanted: asyncio.Future[list[F]], found: list[F] | Exception) -> None:
    if wanted.done():
        return  # cancelled meanwhile
    if isinstance(found, Exception):
        wanted.set_exception(found)
    else:
        wanted.set_result(found)
