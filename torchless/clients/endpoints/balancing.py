"""Which endpoint gets the next call: power of two choices.

Two are drawn, and the one with fewer calls in flight gets it (Mitzenmacher, The Power of Two Choices in Randomized Load
Balancing, 2001): nearly as even as asking all of them, without everybody running to the same one. Calls in flight weigh
as much as they take, as in Finagle's balancers: one call at an endpoint that is twenty times as slow counts as twenty.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.endpoint import Endpoint, Stub

_RANKS = {Health.SERVING: 0, Health.UNKNOWN: 1, Health.NOT_SERVING: 2, Health.UNREACHABLE: 3}
_WELL = 2
"""Ranks below this may be so."""


def choose(
    endpoints: Sequence[Endpoint[Stub]], tried: Collection[Endpoint[Any]] = (), *, only_others: bool = False
) -> Endpoint[Stub] | None:
    """The endpoint for the next attempt of a call, among those whose breakers let it through.

    Healthy ones come first, of those the ones not tried yet. If none is healthy one that is not is asked all the same:
    what it says, for instance GPU_UNAVAILABLE, is better than a guess, and sooner there than the silence of one that
    does not answer.

    Args:
        endpoints: All there are.
        tried: Those that this call has met.
        only_others: Whether only a healthy one that was not tried will do.
    """
    admitted = [each for each in endpoints if each.breaker.admits]
    for rank in sorted(_RANKS.values()):
        ranked = [each for each in admitted if _RANKS[each.health] == rank]
        fresh = [each for each in ranked if each not in tried]
        if fresh and (rank < _WELL or not only_others):
            return _of_two(fresh)
        if ranked and not only_others:
            return _of_two(ranked)
    return None


def _of_two(endpoints: Sequence[Endpoint[Stub]]) -> Endpoint[Stub]:
    if len(endpoints) == 1:
        return endpoints[0]
    first, second = random.sample(endpoints, 2)
    one, other = first.share_in_flight, second.share_in_flight
    takes, other_takes = first.latency_s, second.latency_s
    if takes is not None and other_takes is not None:
        one, other = one * takes, other * other_takes
    return first if one <= other else second
