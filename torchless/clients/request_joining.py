"""Joins concurrent small requests to embed into one call, while calls before them are under way.

A call costs both ends about as much as a short text costs the device, so at many small requests at a time one call with
all of their texts is answered sooner than a call each. Nobody waits for others to come: while fewer calls are under way
than keep a service busy, a request is a call of its own. So it is when as many wait as the next calls can take: the
service then sees how much there is to do, and refuses what it cannot.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Generic, TypeVar

from pydantic import Field

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import CALLERS_FAULT, ErrorKind, TorchlessError
from torchless.settings import SettingsGroup

Answer = TypeVar("Answer")
Key = TypeVar("Key")
_SMOOTHING = 0.2
_ITS_OWN = CALLERS_FAULT | {ErrorKind.INTERNAL}
"""Errors that one request of several may be to blame for."""
_CLOSED = TorchlessError(ErrorKind.UNREACHABLE, "the client was closed")
_DEFECT = TorchlessError(ErrorKind.INTERNAL, "the request could not be sent with others")


class JoiningSettings(SettingsGroup):
    """Joining of concurrent small requests into one call."""

    enabled: bool = True
    """Whether small embedding requests are joined."""
    calls_per_endpoint: int = Field(default=1, ge=1, le=64)
    """Calls in flight at each endpoint from which on requests are joined. With 1, the requests that arrive during a
    call become one batch. For a device that takes a few milliseconds, 2 keeps one call waiting while
    another is computed."""
    max_texts: int = Field(default=8, ge=1, le=1024)
    """Most texts of a request that is joined."""
    max_characters: int = Field(default=4096, ge=1)
    """Most characters of a request that is joined, over all its texts: a long one would delay the others."""
    max_joined_texts: int = Field(default=64, ge=2, le=4096)
    """Most texts of a joined call; a full batch of the service is a good value."""
    max_duration_s: float = Field(default=0.5, gt=0, le=60)
    """Longest duration of a joined call, in seconds, as estimated from recent calls: a slow service gets fewer texts in
    a call."""


@dataclass(slots=True, eq=False)
class _Member(Generic[Answer]):
    """A request that waits."""

    texts: Sequence[str]
    context: CallContext
    deadline: Deadline
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class _Group(Generic[Answer]):
    """Requests that may share a call."""

    calls: int = 0
    waiting: list[_Member[Answer]] = field(default_factory=list)


class Joining(Generic[Key, Answer]):
    """Makes calls, each for one request or for several.

    Args:
        call: Makes a call with the texts of one or several requests.
        part: The part of an answer that is about the texts from one index up to another.
        endpoints: How many endpoints take calls.
        settings: What is joined.
    """

    def __init__(
        self,
        call: Callable[[Sequence[str], Key, CallContext], Awaitable[Answer]],
        part: Callable[[Answer, int, int], Answer],
        endpoints: Callable[[], int],
        settings: JoiningSettings,
    ) -> None:
        self._call = call
        self._part = part
        self._endpoints = endpoints
        self.settings = settings
        self._groups: defaultdict[tuple[Key, str], _Group[Answer]] = defaultdict(_Group)
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds_a_text = 0.0

    def takes(self, texts: Sequence[str]) -> bool:
        """Whether a request with `texts` is small enough."""
        settings = self.settings
        return (
            settings.enabled
            and 0 < len(texts) <= settings.max_texts
            and sum(map(len, texts)) <= settings.max_characters
        )

    async def answer(self, texts: Sequence[str], key: Key, context: CallContext, deadline: Deadline) -> Answer:
        """The answer to one request.

        Args:
            texts: Its texts.
            key: What requests must have in common to share a call.
            context: For whom. Only requests of one tenant share a call.
            deadline: Until when its caller waits.

        Raises:
            TorchlessError: As the call; what another request is to blame for is never raised.
        """
        group = self._groups[key, context.tenant]
        calls = self.settings.calls_per_endpoint * max(1, self._endpoints())
        if group.calls < calls:
            end = self._begin(group, key, context.tenant)
            try:
                return await self._timed(texts, key, context)
            finally:
                end()
        if sum(len(each.texts) for each in group.waiting) + len(texts) > calls * self._most():
            return await self._call(texts, key, context)
        member: _Member[Answer] = _Member(texts, context, deadline)
        group.waiting.append(member)
        try:
            async with asyncio.timeout(deadline.timeout_s):
                return await member.answer
        except TimeoutError:
            raise TorchlessError(ErrorKind.DEADLINE, "the request waited for its turn until its deadline") from None
        finally:
            member.answer.cancel()
            if member in group.waiting:
                group.waiting.remove(member)

    async def close(self) -> None:
        """Cancels the calls under way for several requests; those who wait hear that the client is closed."""
        for group in self._groups.values():
            for each in group.waiting:
                _fail(each, _CLOSED)
            group.waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, group: _Group[Answer], key: Key, tenant: str) -> Callable[[], None]:
        """Counts a call as under way until the function is called, or for twice the time that one is to take.

        One that hangs, at an endpoint that is lost, must not keep those waiting whom another endpoint would answer.
        """
        group.calls += 1
        counts = True

        def end() -> None:
            nonlocal counts
            if counts:
                counts = False
                late.cancel()
                self._ended(group, key, tenant)

        late = asyncio.get_running_loop().call_later(2 * self.settings.max_duration_s, end)
        return end

    def _ended(self, group: _Group[Answer], key: Key, tenant: str) -> None:
        """A call ended: those that wait get the next."""
        group.calls -= 1
        members = self._next(group)
        if members:
            self._together(members, key, self._begin(group, key, tenant))
        elif not group.calls:
            self._groups.pop((key, tenant), None)

    def _next(self, group: _Group[Answer]) -> list[_Member[Answer]]:
        """Those that have waited longest, as many as fit into one call; they wait no longer."""
        members: list[_Member[Answer]] = []
        texts, most = 0, self._most()
        for each in group.waiting:
            texts += len(each.texts)
            if members and texts > most:
                break
            members.append(each)
        del group.waiting[: len(members)]
        return members

    def _together(self, members: list[_Member[Answer]], key: Key, end: Callable[[], None]) -> None:
        """Begins a call for `members`."""
        task = asyncio.get_running_loop().create_task(self._shared(members, key))
        self._tasks.add(task)
        left = len(members)

        def gone(_: object) -> None:
            # The last of them has hung up: nobody waits for the answer.
            nonlocal left
            left -= 1
            if not left:
                task.cancel()

        def done(_: object) -> None:
            self._tasks.discard(task)
            for each in members:
                # A defect, or this client is closed: nobody must wait for ever.
                _fail(each, _CLOSED if task.cancelled() else _DEFECT)
            end()

        for each in members:
            each.answer.add_done_callback(gone)
        task.add_done_callback(done)

    async def _shared(self, members: list[_Member[Answer]], key: Key) -> None:
        """Answers all of them by one call, or each by its own where the fault may be one's alone."""
        texts = [text for each in members for text in each.texts]
        # It is worth going on while anybody waits.
        latest = max((each.deadline for each in members), key=attrgetter("expires_at"))
        try:
            answer = await self._timed(texts, key, replace(members[0].context, deadline=latest))
        except TorchlessError as error:
            if error.kind in _ITS_OWN and len(members) > 1:
                await asyncio.gather(*(self._alone(each, key) for each in members))
            else:
                for each in members:
                    _fail(each, error)
            return
        start = 0
        for each in members:
            if not each.answer.done():
                each.answer.set_result(self._part(answer, start, start + len(each.texts)))
            start += len(each.texts)

    async def _timed(self, texts: Sequence[str], key: Key, context: CallContext) -> Answer:
        """Makes a call, and learns from its end how long a text takes."""
        started = time.monotonic()
        answer = await self._call(texts, key, context)
        seconds = (time.monotonic() - started) / len(texts)
        self._seconds_a_text += _SMOOTHING * (seconds - self._seconds_a_text) if self._seconds_a_text else seconds
        return answer

    def _most(self) -> int:
        """Texts of the next call."""
        if not self._seconds_a_text:
            return self.settings.max_joined_texts
        in_time = int(self.settings.max_duration_s / self._seconds_a_text)
        return max(self.settings.max_texts, min(self.settings.max_joined_texts, in_time))

    async def _alone(self, member: _Member[Answer], key: Key) -> None:
        if member.answer.done() or member.deadline.expired:
            return
        try:
            answer = await self._call(member.texts, key, replace(member.context, deadline=member.deadline))
        except TorchlessError as error:
            _fail(member, error)
        else:
            if not member.answer.done():
                member.answer.set_result(answer)


def _fail(member: _Member[Answer], error: TorchlessError) -> None:
    if not member.answer.done():
        member.answer.set_exception(error.copy())
