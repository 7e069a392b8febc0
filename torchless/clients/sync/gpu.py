"""The GPU service, blocking."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from torchless.clients.call import CallContext
from torchless.clients.gpu import Allocation, GPUClient, GPUDevice, GPUStatus, StatusUpdate
from torchless.clients.metrics import ClientMetrics
from torchless.clients.settings import ClientSettings
from torchless.clients.sync.base import SyncClient


class SyncGPUClient(SyncClient[GPUClient]):
    """Calls one GPU service, and waits for it; each method is that of `GPUClient`.

        with SyncGPUClient("localhost:50056") as client:
            lease = client.allocate(8000, "trainer")

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        settings: How the service is called, or just its address.
        metrics: Where calls and endpoints are shown; None: on Prometheus' default registry.
    """

    def __init__(self, settings: ClientSettings | str, metrics: ClientMetrics | None = None) -> None:
        super().__init__(lambda: GPUClient(settings, metrics))

    def status(self, context: CallContext = CallContext()) -> GPUStatus:
        """The driver, the devices and the leases; says why there are no devices where there are none."""
        return self._run(lambda client: client.status(context))

    def devices(self, context: CallContext = CallContext()) -> list[GPUDevice]:
        """The devices that are there; empty without a GPU or its driver."""
        return self._run(lambda client: client.devices(context))

    def allocate(
        self,
        memory_mb: int,
        holder: str,
        *,
        device_count: int | None = None,
        exclusive: bool = False,
        tenant: str = "",
        ttl_s: float | None = None,
        idempotency_key: str = "",
        pid: int | None = None,
        device_uuids: Sequence[str] = (),
        context: CallContext = CallContext(),
    ) -> Allocation:
        """Leases memory on one or several devices, all of them or none; see `GPUClient.allocate` for the arguments."""
        return self._run(
            lambda client: client.allocate(
                memory_mb,
                holder,
                device_count=device_count,
                exclusive=exclusive,
                tenant=tenant,
                ttl_s=ttl_s,
                idempotency_key=idempotency_key,
                pid=pid,
                device_uuids=device_uuids,
                context=context,
            )
        )

    def renew(
        self, allocation_id: str, *, ttl_s: float | None = None, context: CallContext = CallContext()
    ) -> Allocation:
        """Lets a lease run on for `ttl_s` seconds from now; None: as long as before."""
        return self._run(lambda client: client.renew(allocation_id, ttl_s=ttl_s, context=context))

    def release(self, allocation_id: str, context: CallContext = CallContext()) -> Allocation:
        """Gives a lease back, and answers it as it was."""
        return self._run(lambda client: client.release(allocation_id, context))

    def watch(
        self, *, interval_s: float | None = None, context: CallContext = CallContext()
    ) -> Generator[StatusUpdate, None, None]:
        """The status at once, then at every change and every interval, until the caller stops or the service leaves.

        Args:
            interval_s: Seconds after which the status comes though nothing changed; None: the service's default.
            context: For whom; without a deadline there is none.
        """
        return self._iterate(lambda client, _: client.watch(interval_s=interval_s, context=context))
