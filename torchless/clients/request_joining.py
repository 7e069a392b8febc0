"""Joins concurrent small embedding requests into one call while earlier calls are in flight.

A call costs both ends about as much as a short text costs the device, so one call with the texts of many small
requests is answered sooner than many calls. Requests never wait for company: below the configured number of calls in
flight, each is sent at once. A request is also sent at once when the next calls are full, so that the service sees its
load and can refuse what it cannot do.
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

from torchless.clients.call import MAX_REQUEST_IDS, CallContext
from torchless.clients.deadline import Deadline
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.settings import SettingsGroup

Answer = TypeVar("Answer")
Key = TypeVar("Key")
_SMOOTHING = 0.2
_CLOSED = TorchlessError(ErrorKind.UNREACHABLE, "the client was closed")
_DEFECT = TorchlessError(ErrorKind.INTERNAL, "the joined call failed")


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
    """A request that waits for a joined call."""

    texts: Sequence[str]
    context: CallContext
    deadline: Deadline
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: TorchlessError) -> None:
        """Answers the request with `error`, unless it has an answer."""
        if not self.answer.done():
            self.answer.set_exception(error.copy())


@dataclass(slots=True)
class _Group(Generic[Answer]):
    """Requests that may share a call."""

    calls: int = 0
    waiting: list[_Member[Answer]] = field(default_factory=list)


class Joining(Generic[Key, Answer]):
    """Makes calls, each for one request or for several.

    Args:
        call: Makes a call with the texts of one or several requests.
        part: Takes the answer for the texts from one index up to another out of an answer.
        endpoints: Counts the available endpoints.
        settings: Which requests are joined.
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
        self._seconds_per_text = 0.0

    def takes(self, texts: Sequence[str]) -> bool:
        """Whether a request with `texts` is small enough to be joined."""
        settings = self.settings
        if not settings.enabled or not 0 < len(texts) <= settings.max_texts:
            return False
        return sum(map(len, texts)) <= settings.max_characters

    async def answer(self, texts: Sequence[str], key: Key, context: CallContext, deadline: Deadline) -> Answer:
        """The answer to one request.

        Args:
            texts: Its texts.
            key: What requests must have in common to share a call.
            context: Its context. Only requests of one tenant share a call.
            deadline: Until when its caller waits.

        Raises:
            TorchlessError: As the call; never an error that another request caused.
        """
        group = self._groups[key, context.tenant]
        calls = self.settings.calls_per_endpoint * max(1, self._endpoints())
        if group.calls < calls:
            end = self._begin(group, key, context.tenant)
            try:
                return await self._timed(texts, key, context)
            finally:
                end()
        if sum(len(member.texts) for member in group.waiting) + len(texts) > calls * self._max_texts():
            return await self._call(texts, key, context)
        member: _Member[Answer] = _Member(texts, context, deadline)
        group.waiting.append(member)
        try:
            async with asyncio.timeout(deadline.timeout_s):
                return await member.answer
        except TimeoutError:
            raise TorchlessError(
                ErrorKind.DEADLINE, "the deadline passed while the request waited for earlier calls"
            ) from None
        finally:
            member.answer.cancel()
            if member in group.waiting:
                group.waiting.remove(member)

    async def close(self) -> None:
        """Cancels the joined calls; requests that wait end with UNREACHABLE."""
        for group in self._groups.values():
            for member in group.waiting:
                member.fail(_CLOSED)
            group.waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, group: _Group[Answer], key: Key, tenant: str) -> Callable[[], None]:
        """Counts a call as in flight until the returned function is called, or for twice the longest duration.

        A call that hangs at a lost endpoint must not hold back requests that another endpoint could answer.
        """
        group.calls += 1
        counts = True

        def end() -> None:
            nonlocal counts
            if counts:
                counts = False
                late.cancel()
                self._call_ended(group, key, tenant)

        late = asyncio.get_running_loop().call_later(2 * self.settings.max_duration_s, end)
        return end

    def _call_ended(self, group: _Group[Answer], key: Key, tenant: str) -> None:
        """Starts the next joined call, if requests wait."""
        group.calls -= 1
        members = self._take_waiting(group)
        if members:
            self._join(members, key, self._begin(group, key, tenant))
        elif not group.calls:
            self._groups.pop((key, tenant), None)

    def _take_waiting(self, group: _Group[Answer]) -> list[_Member[Answer]]:
        """Takes the requests that have waited longest, as many as fit into one call with their texts and ids."""
        members: list[_Member[Answer]] = []
        texts, max_texts, ids = 0, self._max_texts(), 0
        for member in group.waiting:
            texts += len(member.texts)
            ids += len(member.context.request_id) + 1
            if members and (texts > max_texts or ids > MAX_REQUEST_IDS):
                break
            members.append(member)
        del group.waiting[: len(members)]
        return members

    def _join(self, members: list[_Member[Answer]], key: Key, end: Callable[[], None]) -> None:
        """Starts one call for `members`."""
        task = asyncio.get_running_loop().create_task(self._answer_all(members, key))
        self._tasks.add(task)
        waiting = len(members)

        def stop_waiting(_: object) -> None:
            # Once every caller has its answer or has disconnected, the call is of no use.
            nonlocal waiting
            waiting -= 1
            if not waiting:
                task.cancel()

        def done(_: object) -> None:
            self._tasks.discard(task)
            for member in members:
                # After a defect, or when the client is closed, no request may wait for ever.
                member.fail(_CLOSED if task.cancelled() else _DEFECT)
            end()

        for member in members:
            member.answer.add_done_callback(stop_waiting)
        task.add_done_callback(done)

    async def _answer_all(self, members: list[_Member[Answer]], key: Key) -> None:
        """Answers all requests with one call, or each with its own if one of them may have caused an error."""
        texts = [text for member in members for text in member.texts]
        # The call is of use until the last caller stops waiting.
        deadline = max((member.deadline for member in members), key=attrgetter("expires_at"))
        # The service sees the tenant, which is the same for all, and the trace of the first request.
        first, *others = (member.context for member in members)
        ids = tuple(other.request_id for other in others if other.request_id)
        try:
            answer = await self._timed(texts, key, replace(first, deadline=deadline, other_request_ids=ids))
        except TorchlessError as error:
            if error.kind.policy.from_one_input and len(members) > 1:
                await asyncio.gather(*(self._answer_alone(member, key) for member in members))
            else:
                for member in members:
                    member.fail(error)
            return
        start = 0
        for member in members:
            if not member.answer.done():
                member.answer.set_result(self._part(answer, start, start + len(member.texts)))
            start += len(member.texts)

    async def _timed(self, texts: Sequence[str], key: Key, context: CallContext) -> Answer:
        """Makes a call, and updates the estimate of the time per text."""
        started = time.monotonic()
        answer = await self._call(texts, key, context)
        seconds = (time.monotonic() - started) / len(texts)
        self._seconds_per_text += _SMOOTHING * (seconds - self._seconds_per_text) if self._seconds_per_text else seconds
        return answer

    def _max_texts(self) -> int:
        """Most texts of the next joined call."""
        if not self._seconds_per_text:
            return self.settings.max_joined_texts
        in_time = int(self.settings.max_duration_s / self._seconds_per_text)
        return max(self.settings.max_texts, min(self.settings.max_joined_texts, in_time))

    async def _answer_alone(self, member: _Member[Answer], key: Key) -> None:
        if member.answer.done() or member.deadline.expired:
            return
        try:
            answer = await self._call(member.texts, key, replace(member.context, deadline=member.deadline))
        except TorchlessError as error:
            member.fail(error)
        else:
            if not member.answer.done():
                member.answer.set_result(answer)
