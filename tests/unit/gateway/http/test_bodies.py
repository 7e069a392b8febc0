"""A body that stops arriving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from gateway.apis.families import FAMILIES
from gateway.http.bodies import BodyLimit
from gateway.http.exceptions import StalledBodyError, UnreadBodyError
from torchless.clients.deadline import Deadline


async def read_half(limit: BodyLimit, deadline: Deadline) -> None:
    """Reads a body whose client sends half of it."""
    sent = [{"type": "http.request", "body": b"half", "more_body": True}]

    async def receive() -> Any:
        return sent.pop() if sent else await asyncio.Event().wait()

    with limit.body(Request({"type": "http", "headers": []}, receive), "embedding", deadline=deadline) as body:
        await body.read_all()


async def test_a_client_that_pauses_for_too_long_gets_408_from_every_family() -> None:
    with pytest.raises(StalledBodyError) as stalled:
        await read_half(BodyLimit(1, 1, 0.05), Deadline.NEVER)
    assert {routes.family.answer(stalled.value).status_code for routes in FAMILIES} == {408}


async def test_an_earlier_deadline_ends_the_pause() -> None:
    with pytest.raises(UnreadBodyError, match="deadline") as late:
        await read_half(BodyLimit(1, 1, 60), Deadline.after(0.05))
    assert not isinstance(late.value, StalledBodyError)


async def test_a_changed_limit_counts_for_the_next_body() -> None:
    limit = BodyLimit(1, 1, 60)
    limit.reconfigure(1, 1, 0.05)
    with pytest.raises(StalledBodyError):
        await read_half(limit, Deadline.NEVER)
