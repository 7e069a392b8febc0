"""Asynchronous streams as ordinary iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from torchless.clients.sync.background import BackgroundLoop, exiting

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

    The caller's thread waits for events of the loop. When the loop needs the next frame, it asks that thread to read
    it. So frames are read in the thread that takes the answers, and no faster than the service takes frames.

    Args:
        loop: Runs the asynchronous stream.
    """

    def __init__(self, loop: BackgroundLoop) -> None:
        self._loop = loop
        self._events: SimpleQueue[_Answer[T] | _Ended | Callable[[], None]] = SimpleQueue()
        self._ahead = asyncio.Semaphore(_AHEAD)

    def iterate(self, stream: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """The answers of `stream`, started by the first `next`; cancelled and closed when left early or interrupted."""
        pumping = self._loop.begin(self._pump(stream))
        try:
            while True:
                event = self._events.get()
                if isinstance(event, _Answer):
                    self._loop.post(self._ahead.release)
                    yield event.value
                elif isinstance(event, _Ended):
                    if event.error is not None:
                        raise event.error
                    return
                else:
                    event()  # reads a frame
        finally:
            pumping.cancel()  # without waiting: the garbage collector may be closing the generator

    async def frames(self, frames: Iterable[F]) -> AsyncGenerator[F, None]:
        """The same frames, in the loop; raises what reading them raises."""
        iterator = iter(frames)
        while True:
            wanted: asyncio.Future[list[F]] = asyncio.get_running_loop().create_future()
            self._events.put(partial(self._read, iterator, wanted))
            frame = await wanted
            if not frame:
                return
            yield frame[0]

    def _read(self, frames: Iterator[F], wanted: asyncio.Future[list[F]]) -> None:
        """Reads one frame in the caller's thread: a list with the frame, or an empty list after the last one."""
        try:
            self._loop.post(partial(_settle, wanted, [next(frames)]))
        except StopIteration:
            self._loop.post(partial(_settle, wanted, []))
        except Exception as error:
            self._loop.post(partial(_settle, wanted, error))

    async def _pump(self, stream: Callable[[], AsyncGenerator[T, None]]) -> None:
        try:
            async with aclosing(stream()) as answers:
                await self._ahead.acquire()
                async for answer in answers:
                    self._events.put(_Answer(answer))
                    await self._ahead.acquire()
        except asyncio.CancelledError:
            self._events.put(_Ended(exiting()))  # read only by a caller that did not leave the stream
            raise
        except Exception as error:
            self._events.put(_Ended(error))
        else:
            self._events.put(_Ended(None))


def _settle(wanted: asyncio.Future[list[F]], found: list[F] | Exception) -> None:
    if wanted.done():
        return  # cancelled in the meantime
    if isinstance(found, Exception):
        wanted.set_exception(found)
    else:
        wanted.set_result(found)
