"""Converts snapshots, leases and events to protobuf messages."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache

from bentos.gpu.events import Event, EventKind, ThresholdName
from bentos.gpu.leases import Lease, LeaseState
from bentos.gpu.snapshot import DeviceState, Snapshot
from torchless.contracts.gpu.v1 import gpu_pb2 as pb

_MAX_PROCESSES = 256
_KINDS = {kind: pb.EventKind.Value(f"EVENT_KIND_{kind.name}") for kind in EventKind}
_THRESHOLDS = {name: pb.Threshold.Value(f"THRESHOLD_{name.name}") for name in ThresholdName}


@lru_cache(maxsize=4)
def status(snapshot: Snapshot) -> pb.Status:
    """A snapshot as a message. It is cached, so do not change it."""
    return pb.Status(
        available=snapshot.available,
        unavailable_reason=snapshot.reason,
        driver_version=snapshot.driver_version,
        cuda_version=snapshot.cuda_version,
        nvml_version=snapshot.nvml_version,
        devices=[device(each) for each in snapshot.devices],
        lost_devices=[pb.LostDevice(**asdict(each)) for each in snapshot.lost_devices],
        allocations=[allocation(each) for each in snapshot.leases],
        read_at=snapshot.read_at,
        reserve_mb=snapshot.reserve_mb,
    )


def device(state: DeviceState) -> pb.Device:
    """A device as a message; fields that the device does not report are absent."""
    own = state.reading
    memory = own.memory
    return pb.Device(
        uuid=own.uuid,
        index=own.index,
        name=own.name,
        pci_bus_id=own.pci_bus_id,
        memory_total_mb=None if memory is None else memory.total_mb,
        memory_used_mb=None if memory is None else memory.used_mb,
        memory_free_mb=None if memory is None else memory.free_mb,
        memory_leased_mb=state.leased_mb,
        memory_allocatable_mb=state.allocatable_mb,
        allocatable=state.allocatable,
        healthy=not own.fault,
        unhealthy_reason=own.fault,
        utilization_percent=own.utilization_percent,
        memory_utilization_percent=own.memory_utilization_percent,
        temperature_c=own.temperature_c,
        power_w=own.power_w,
        power_limit_w=own.power_limit_w,
        ecc_corrected=own.ecc_corrected,
        ecc_uncorrected=own.ecc_uncorrected,
        mig_enabled=own.mig_enabled,
        parent_uuid=own.parent_uuid,
        mig_index=own.mig_index,
        processes=[pb.Process(pid=each.pid, memory_mb=each.memory_mb) for each in own.processes[:_MAX_PROCESSES]],
    )


def allocation(lease: Lease) -> pb.Allocation:
    """A lease as a message."""
    return pb.Allocation(
        id=lease.id,
        devices=[pb.AllocatedDevice(**asdict(each)) for each in lease.devices],
        holder=lease.holder,
        tenant=lease.tenant,
        state=pb.ALLOCATION_STATE_LOST if lease.state is LeaseState.LOST else pb.ALLOCATION_STATE_ACTIVE,
        lost_reason=lease.lost_reason,
        created=lease.created,
        expires=lease.expires,
        exclusive=lease.exclusive,
        pid=lease.pid,
    )


def event(happened: Event) -> pb.Event:
    """An event as a message."""
    return pb.Event(
        kind=_KINDS[happened.kind],
        at=happened.at,
        message=happened.message,
        device_uuid=happened.device_uuid,
        allocation_id=happened.allocation_id,
        threshold=pb.THRESHOLD_UNSPECIFIED if happened.threshold is None else _THRESHOLDS[happened.threshold],
        value=happened.value,
        limit=happened.limit,
    )
