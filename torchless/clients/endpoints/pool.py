"""All endpoints of one capability, found anew as names change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Generic

from torchless.clients.addresses import Target, parse
from torchless.clients.deadline import Deadline
from torchless.clients.endpoint_state import BreakerState, EndpointState, Health
from torchless.clients.endpoints.balancing import choose
from torchless.clients.endpoints.breaker import Ticket
from torchless.clients.endpoints.endpoint import Endpoint, Stub
from torchless.clients.settings import ClientSettings
from torchless.clients.translate import out_of_time, unreachable
from torchless.contracts.errors import ErrorKind, TorchlessError

logger = logging.getLogger(__name__)
_SHORTEST_S = 1.0
"""Names are not resolved more often than this, whatever fails."""


class EndpointPool(Generic[Stub]):
    """Picks endpoints; keeps their number up to date. Made inside the running event loop.

    Args:
        settings: Where they are and how they are called.
        capability: Name of the capability, for messages and logs.
        make_endpoint: Makes one for an address.
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
        self._wanted = asyncio.Event()
        self._resolved_once: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._leaving: dict[Endpoint[Stub], asyncio.Task[None]] = {}
        self._started = False
        self.is_closed = False
        """Whether it gives out no endpoints any more."""
        self._unresolved: set[Target] = set()
        self._set(settings)

    def start(self) -> None:
        """Begins to follow names and the endpoints' health; a second call changes nothing."""
        if self._started or self.is_closed:
            return
        self._started = True
        for endpoint in self._endpoints.values():
            endpoint.start()
        if any(target.many for target in self._targets):
            self._follow()

    async def reconfigure(self, settings: ClientSettings) -> None:
        """Other settings from now on: new endpoints get calls, those that are gone finish theirs."""
        if self.is_closed:
            return
        self._set(settings)
        # What is being looked up belongs to the settings before. Calls that wait for it wait for the new names.
        stopped = self._stop_following()
        if self._started and any(target.many for target in self._targets):
            self._follow()
        if stopped:
            await asyncio.wait(stopped)

    async def close(self) -> None:
        """Closes every endpoint, also those that were leaving; calls in flight end with UNREACHABLE."""
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
            tried: Endpoints that it has met.
            only_others: Whether only a healthy one that it has not met will do.
            size: Size of its request, in bytes.

        Raises:
            TorchlessError: UNREACHABLE when no endpoint is known, CIRCUIT_OPEN when no breaker lets a call through,
                DEADLINE when there is no time left.
        """
        if deadline.expired:
            raise out_of_time(self._capability)
        self.start()
        await self.known(deadline)
        endpoints = list(self._endpoints.values())
        endpoint = choose(endpoints, tried, only_others=only_others)
        ticket = endpoint.breaker.begin(deadline.remaining_s, size) if endpoint is not None else None
        if endpoint is None or ticket is None:
            raise self._nobody(endpoints)
        return endpoint, ticket

    async def known(self, deadline: Deadline) -> None:
        """Waits until names have been resolved once, or `deadline` has passed."""
        while not self._endpoints and (task := self._resolved_once) is not None:
            await asyncio.wait({task}, timeout=deadline.timeout_s)
            if task is self._resolved_once:  # else other settings came, and with them other names
                return

    def look_again(self) -> None:
        """An endpoint could not be reached: its name may stand for another by now."""
        self._wanted.set()

    def states(self) -> list[EndpointState]:
        """What is known of each endpoint now."""
        return [endpoint.state() for endpoint in self._endpoints.values()]

    def takers(self) -> int:
        """How many endpoints take calls now, as far as is known."""
        return sum(each.takes_calls for each in self._endpoints.values())

    def is_down(self) -> bool:
        """Whether each of them is known not to take calls."""
        return not any(
            each.breaker.state is BreakerState.CLOSED and each.health in {Health.SERVING, Health.UNKNOWN}
            for each in self._endpoints.values()
        )

    def endpoints(self) -> list[Endpoint[Stub]]:
        """Those that may get calls."""
        return list(self._endpoints.values())

    def _nobody(self, endpoints: list[Endpoint[Stub]]) -> TorchlessError:
        if self.is_closed:
            return unreachable(self._capability)
        if not endpoints:
            self.look_again()
            return TorchlessError(
                ErrorKind.UNREACHABLE,
                f"no address of the {self._capability} service is known: its name is not resolved",
                retry_after_s=self._settings.discovery.interval_s,
            )
        wait_s = min(endpoint.breaker.next_probe_s for endpoint in endpoints)
        return TorchlessError(
            ErrorKind.CIRCUIT_OPEN,
            f"the {self._capability} service has not answered lately; it is tried again shortly",
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
        """Makes the endpoints those that are known."""
        addresses = list(dict.fromkeys(address for found in self._known.values() for address in found))
        for address in self._endpoints.keys() - set(addresses):
            logger.info("%s endpoint %s is gone from discovery", self._capability, address)
            self._let_go(self._endpoints.pop(address))
        for address in addresses:
            if address not in self._endpoints:
                self._endpoints[address] = endpoint = self._make_endpoint(address, self._settings)
                if self._started:
                    endpoint.start()

    def _let_go(self, endpoint: Endpoint[Stub]) -> None:
        """Closes it once its calls have ended. Streams have no deadline of their own; they end with the default one."""
        task = asyncio.get_running_loop().create_task(endpoint.leave(self._settings.deadline_s))
        self._leaving[endpoint] = task
        task.add_done_callback(lambda _: self._leaving.pop(endpoint))

    def _stop_following(self) -> set[asyncio.Task[None]]:
        """The tasks that end now."""
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
                # Not asyncio.wait_for: on 3.11 it loses a cancellation that comes as the event is set.
                async with asyncio.timeout(self._settings.discovery.interval_s):
                    await self._wanted.wait()
            await asyncio.sleep(max(0.0, began + _SHORTEST_S - time.monotonic()))
            self._wanted.clear()
            await self._resolve()

    async def _resolve(self) -> None:
        for target in [each for each in self._targets if each.many]:
            try:
                self._known[target] = await self._look_up(target)
            except OSError:  # a TimeoutError is one
                if target not in self._unresolved:
                    logger.warning("%s: a name of its address is not resolved", self._capability)
                self._unresolved.add(target)
            else:
                self._unresolved.discard(target)
        self._adjust()

    async def _look_up(self, target: Target) -> list[str]:
        """The endpoints of `target`.

        One lookup at a time: each that hangs holds a thread of the few that the whole process has. What one finds after
        its time is taken the next time.

        Raises:
            OSError: As `Target.endpoints`; TimeoutError after `discovery.timeout_s`.
        """
        lookup = self._lookups.get(target)
        if lookup is None:
            self._lookups[target] = lookup = asyncio.get_running_loop().create_task(target.endpoints())
            lookup.add_done_callback(_looked_at)
        done, _ = await asyncio.wait({lookup}, timeout=self._settings.discovery.timeout_s)
        if not done:
            raise TimeoutError
        self._lookups.pop(target, None)
        return lookup.result()


def _looked_at(lookup: asyncio.Task[list[str]]) -> None:
    """Nobody may come to ask for its error."""
    if not lookup.cancelled():
        lookup.exception()
