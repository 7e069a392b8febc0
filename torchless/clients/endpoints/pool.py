"""All endpoints of one service: discovers them, and picks one for each call.

Balancing is power of two choices: of two endpoints drawn at random, the one with fewer calls in flight gets the call
(Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001). That is nearly as even as comparing all of
them, and not every caller runs to the same one. Calls in flight are weighted by latency, as in Finagle's balancers: one
call at an endpoint that is twenty times as slow counts as twenty.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Generic

from torchless.clients.addresses import Target, parse
from torchless.clients.deadline import Deadline
from torchless.clients.endpoint_state import BreakerState, EndpointState, Health
from torchless.clients.endpoints.breaker import Ticket
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import out_of_time, unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
_RANKS = {Health.SERVING: 0, Health.UNKNOWN: 1, Health.NOT_SERVING: 2, Health.UNREACHABLE: 3}
_UNHEALTHY_FROM = 2


def choose(
    endpoints: Sequence[Endpoint[Stub]], tried: Collection[Endpoint[Any]] = (), *, only_others: bool = False
) -> Endpoint[Stub] | None:
    """The endpoint for the next attempt of a call, among those whose breakers admit it; None: there is none.

    Healthy endpoints come first, and of those the ones that were not tried yet. If none is healthy, an unhealthy one is
    called anyway, because its own error, for instance GPU_UNAVAILABLE, says more than a guess; one that answers comes
    before one that does not.

    Args:
        endpoints: All endpoints.
        tried: Endpoints that this call has tried.
        only_others: Whether to accept only a healthy endpoint that was not tried.
    """
    admitted = [endpoint for endpoint in endpoints if endpoint.breaker.admits]
    for rank in range(len(_RANKS)):
        ranked = [endpoint for endpoint in admitted if _RANKS[endpoint.health] == rank]
        fresh = [endpoint for endpoint in ranked if endpoint not in tried]
        if fresh and (rank < _UNHEALTHY_FROM or not only_others):
            return _choose_of_two(fresh)
        if ranked and not only_others:
            return _choose_of_two(ranked)
    return None


def _choose_of_two(endpoints: Sequence[Endpoint[Stub]]) -> Endpoint[Stub]:
    if len(endpoints) == 1:
        return endpoints[0]
    first, second = random.sample(endpoints, 2)
    first_load, second_load = first.load, second.load
    first_s, second_s = first.latency_s, second.latency_s
    if first_s is not None and second_s is not None:
        first_load, second_load = first_load * first_s, second_load * second_s
    return first if first_load <= second_load else second


class EndpointPool(Generic[Stub]):
    """Picks endpoints, and follows their discovery. Create it inside the running event loop.

    Args:
        settings: Addresses, and how the endpoints are called.
        capability: Name of the capability, for messages and logs.
        make_endpoint: Makes the endpoint for an address.
    """

    def __init__(
        self,
        settings: ClientSettings,
        capability: str,
        make_endpoint: Callable[[str, ClientSettings], Endpoint[Stub]],
    ) -> None:
        self._capability = capability
        self._make_endpoint = make_endpoint
        self._endpoints: dict[str, Endpoint[Stub]] = {}
        self._known: dict[Target, list[str]] = {}
        self._lookups: dict[Target, asyncio.Task[list[str]]] = {}
        self._refresh = asyncio.Event()
        self._resolved_once: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._leaving: dict[Endpoint[Stub], asyncio.Task[None]] = {}
        self._started = False
        self.is_closed = False
        """Whether `close` was called."""
        self.min_refresh_s = 1.0
        """Shortest time between two lookups, in seconds, however many calls fail."""
        self._unresolved: set[Target] = set()
        self._changes_of_gone = 0
        self._set(settings)

    def start(self) -> None:
        """Starts discovery and health checks; a second call does nothing."""
        if self._started or self.is_closed:
            return
        self._started = True
        for endpoint in self._endpoints.values():
            endpoint.start()
        if any(target.many for target in self._targets):
            self._follow()

    async def reconfigure(self, settings: ClientSettings) -> None:
        """Applies other settings from now on: new endpoints get calls, removed ones finish theirs."""
        if self.is_closed:
            return
        self._set(settings)
        # The lookups in progress belong to the old settings. Calls that wait for them wait for the new names.
        stopped = self._stop_following()
        if self._started and any(target.many for target in self._targets):
            self._follow()
        if stopped:
            await asyncio.wait(stopped)

    async def close(self) -> None:
        """Closes every endpoint, including leaving ones; calls in flight end with UNREACHABLE."""
        self.is_closed = True
        leaving = dict(self._leaving)
        for task in leaving.values():
            task.cancel()
        for lookup in self._lookups.values():
            lookup.cancel()
        stopped: set[asyncio.Task[Any]] = {*self._stop_following(), *leaving.values(), *self._lookups.values()}
        if stopped:
            await asyncio.wait(stopped)
        endpoints, self._endpoints = [*self._endpoints.values(), *leaving], {}
        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))

    async def pick(
        self,
        deadline: Deadline,
        tried: Collection[Endpoint[Any]] = (),
        *,
        only_others: bool = False,
        size: int = 0,
    ) -> tuple[Endpoint[Stub], Ticket]:
        """An endpoint, and its breaker's permission for one call.

        Args:
            deadline: Until when the call waits.
            tried: Endpoints that the call has tried.
            only_others: Whether to accept only a healthy endpoint that was not tried.
            size: Size of the request, in bytes.

        Raises:
            TorchlessError: UNREACHABLE when no endpoint is known, CIRCUIT_OPEN when no breaker admits a call, DEADLINE
                when the deadline has passed.
        """
        remaining_s = deadline.remaining_s
        if remaining_s <= 0:
            raise out_of_time(self._capability)
        self.start()
        if not self._endpoints:
            await self.known(deadline)
            remaining_s = deadline.remaining_s
        endpoints = list(self._endpoints.values())
        endpoint = choose(endpoints, tried, only_others=only_others)
        ticket = endpoint.breaker.begin(remaining_s, size) if endpoint is not None else None
        if endpoint is None or ticket is None:
            raise self._no_endpoint(endpoints)
        return endpoint, ticket

    async def known(self, deadline: Deadline) -> None:
        """Waits until names have been resolved once, or `deadline` has passed."""
        while not self._endpoints and (task := self._resolved_once) is not None:
            await asyncio.wait({task}, timeout=deadline.timeout_s)
            if task is self._resolved_once:  # otherwise other settings arrived, and with them other names
                return

    def refresh(self) -> None:
        """Resolves names again soon: an endpoint could not be reached, so its name may have another address by now."""
        self._refresh.set()

    def states(self) -> list[EndpointState]:
        """The current state of each endpoint."""
        return [endpoint.state() for endpoint in self._endpoints.values()]

    def available_endpoints(self) -> int:
        """The number of healthy endpoints with a closed breaker, as far as is known."""
        return sum(endpoint.is_available for endpoint in self._endpoints.values())

    def is_down(self) -> bool:
        """Whether every endpoint is known to be unhealthy or has an open breaker."""
        return not any(
            endpoint.breaker.state is BreakerState.CLOSED and endpoint.health in {Health.SERVING, Health.UNKNOWN}
            for endpoint in self._endpoints.values()
        )

    def changes(self) -> int:
        """How often the health of an endpoint changed, or an endpoint was removed; never decreases."""
        return self._changes_of_gone + sum(endpoint.health_changes for endpoint in self._endpoints.values())

    def may_serve(self) -> bool:
        """Whether an endpoint is SERVING, or nothing is known yet."""
        healths = [endpoint.health for endpoint in self._endpoints.values()]
        return not healths or any(_RANKS[health] < _UNHEALTHY_FROM for health in healths)

    def endpoints(self) -> list[Endpoint[Stub]]:
        """All endpoints that may get calls."""
        return list(self._endpoints.values())

    def _no_endpoint(self, endpoints: list[Endpoint[Stub]]) -> TorchlessError:
        if self.is_closed:
            return unreachable(self._capability)
        if not endpoints:
            self.refresh()
            return TorchlessError(
                ErrorKind.UNREACHABLE,
                f"the address of the {self._capability} service cannot be resolved",
                retry_after_s=self._settings.discovery.interval_s,
            )
        wait_s = min(endpoint.breaker.next_probe_s for endpoint in endpoints)
        return TorchlessError(
            ErrorKind.CIRCUIT_OPEN,
            f"the circuit breaker of the {self._capability} service is open after failed calls; retry shortly",
            retry_after_s=max(wait_s, 0.1),
        )

    def _set(self, settings: ClientSettings) -> None:
        self._targets = parse(settings.address)
        self._settings = settings
        self._known = {
            target: self._known.get(target, []) if target.many else [target.text] for target in self._targets
        }
        for target in self._lookups.keys() - set(self._targets):
            self._lookups.pop(target).cancel()
        for endpoint in self._endpoints.values():
            endpoint.reconfigure(settings)
        self._adjust()

    def _adjust(self) -> None:
        """Adds the endpoints that discovery has found, and removes the others."""
        addresses = list(dict.fromkeys(address for found in self._known.values() for address in found))
        for address in self._endpoints.keys() - set(addresses):
            logger.info("%s endpoint %s is gone from discovery", self._capability, address)
            gone = self._endpoints.pop(address)
            self._changes_of_gone += gone.health_changes + 1
            self._let_go(gone)
        for address in addresses:
            if address not in self._endpoints:
                self._endpoints[address] = endpoint = self._make_endpoint(address, self._settings)
                if self._started:
                    endpoint.start()

    def _let_go(self, endpoint: Endpoint[Stub]) -> None:
        """Closes it once its calls have ended. Streams, which may have no deadline, have the default deadline left."""
        task = asyncio.get_running_loop().create_task(endpoint.leave(self._settings.deadline_s))
        self._leaving[endpoint] = task
        task.add_done_callback(lambda _: self._leaving.pop(endpoint))

    def _stop_following(self) -> set[asyncio.Task[None]]:
        """Cancels discovery; returns the tasks that end now."""
        tasks = {task for task in (self._following, self._resolved_once) if task is not None}
        self._following = self._resolved_once = None
        for task in tasks:
            task.cancel()
        return tasks

    def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        self._resolved_once = loop.create_task(self._resolve())
        self._following = loop.create_task(self._keep_resolving(self._resolved_once))

    async def _keep_resolving(self, first: asyncio.Task[None]) -> None:
        await asyncio.wait({first})
        while True:
            began = time.monotonic()
            with suppress(TimeoutError):
                # Not asyncio.wait_for: on 3.11 it loses a cancellation that arrives as the event is set.
                async with asyncio.timeout(self._settings.discovery.interval_s):
                    await self._refresh.wait()
            await asyncio.sleep(max(0.0, began + self.min_refresh_s - time.monotonic()))
            self._refresh.clear()
            await self._resolve()

    async def _resolve(self) -> None:
        for target in [target for target in self._targets if target.many]:
            try:
                self._known[target] = await self._look_up(target)
            except OSError:  # a TimeoutError is one
                if target not in self._unresolved:
                    logger.warning("%s: a name in the address cannot be resolved", self._capability)
                self._unresolved.add(target)
            else:
                self._unresolved.discard(target)
        self._adjust()

    async def _look_up(self, target: Target) -> list[str]:
        """The endpoints of `target`.

        There is one lookup per name at a time, because a lookup that hangs holds one of the process's few threads. The
        result of a late lookup is used the next time.

        Raises:
            OSError: As `Target.endpoints`; TimeoutError after `discovery.timeout_s`.
        """
        lookup = self._lookups.get(target)
        if lookup is None:
            self._lookups[target] = lookup = asyncio.get_running_loop().create_task(target.endpoints())
            lookup.add_done_callback(_retrieve_error)
        done, _ = await asyncio.wait({lookup}, timeout=self._settings.discovery.timeout_s)
        if not done:
            raise TimeoutError
        self._lookups.pop(target, None)
        return lookup.result()


def _retrieve_error(lookup: asyncio.Task[list[str]]) -> None:
    """Marks the error of a late lookup as retrieved, so that asyncio does not log it."""
    if not lookup.cancelled():
        lookup.exception()
