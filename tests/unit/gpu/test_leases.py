"""The leasing rules: free memory of a device, and the choice of devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.gpu.driver import DeviceReading, MemoryReading
from bentos.gpu.leases import DeviceAllocation, Lease, LeaseRequest, choose_devices, free_memory_mb
from tests.fake_gpu_driver import device
from torchless.contracts.errors import ErrorKind, TorchlessError

NOW = 1000.0
RESERVE = 100


def lease(
    uuid: str, memory_mb: int, *, pid: int | None = None, exclusive: bool = False, expires: float = NOW + 60
) -> Lease:
    return Lease(
        id=f"{uuid}-{memory_mb}-{pid}",
        devices=(DeviceAllocation(uuid, 0, "Fake GPU", memory_mb),),
        holder="h",
        tenant="",
        created=NOW - 1,
        expires=expires,
        ttl_s=60,
        exclusive=exclusive,
        pid=pid,
        idempotency_key="",
        fingerprint="",
    )


def room(one: DeviceReading, *leases: Lease) -> int:
    return free_memory_mb(one, [(each, each.devices[0]) for each in leases], RESERVE)


def placed(devices: list[DeviceReading], leases: list[Lease], memory_mb: int, **more: object) -> list[str]:
    request = LeaseRequest(memory_mb=memory_mb, holder="h", ttl_s=60, **more)  # type: ignore[arg-type]
    return [each.uuid for each in choose_devices(request, devices, leases, reserve_mb=RESERVE, now=NOW)]


def refusal(devices: list[DeviceReading], leases: list[Lease], memory_mb: int, **more: object) -> TorchlessError:
    with pytest.raises(TorchlessError) as caught:
        placed(devices, leases, memory_mb, **more)
    return caught.value


def test_empty_device_offers_all_but_the_reserve() -> None:
    assert room(device("a", total_mb=1000)) == 900


def test_memory_of_strangers_is_not_offered() -> None:
    assert room(device("a", total_mb=1000, used_mb=300, processes={9: 300})) == 600


def test_lease_without_a_process_counts_on_top_of_used_memory() -> None:
    assert room(device("a", total_mb=1000, used_mb=300, processes={9: 300}), lease("a", 300)) == 300


@pytest.mark.parametrize(
    ("used_by_holder", "left"),
    [(0, 600), (200, 600), (300, 600), (400, 500)],
    ids=["nothing yet", "a part", "all of it", "more than it leased"],
)
def test_holders_memory_counts_once(used_by_holder: int, left: int) -> None:
    one = device("a", total_mb=1000, used_mb=used_by_holder, processes={7: used_by_holder})
    assert room(one, lease("a", 300, pid=7)) == left


def test_leases_of_one_process_count_together() -> None:
    one = device("a", total_mb=1000, used_mb=350, processes={7: 350})
    assert room(one, lease("a", 300, pid=7), lease("a", 200, pid=7)) == 400


def test_offer_never_exceeds_free_memory() -> None:
    """Some drivers keep memory that they count neither as used nor as free."""
    one = replace(device("a"), memory=MemoryReading(total_mb=1000, used_mb=100, free_mb=400))
    assert room(one) == 300
    assert room(one, lease("a", 50)) == 250


def test_process_with_unknown_memory_counts_as_a_stranger() -> None:
    one = device("a", total_mb=1000, used_mb=300)
    assert room(one, lease("a", 300, pid=7)) == 300


@given(
    total=st.integers(1, 2000),
    strangers=st.integers(0, 500),
    holders=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 500)), max_size=4),
)
def test_all_leased_memory_can_be_used_at_once(total: int, strangers: int, holders: list[tuple[int, int]]) -> None:
    """Every holder uses its whole lease: other processes keep their memory, and the reserve is still free."""
    in_use = strangers + sum(used for _, used in holders)
    if in_use > total:
        return
    processes = {pid: used for pid, (_, used) in enumerate(holders, start=1)}
    one = device("a", total_mb=total, used_mb=in_use, processes={99: strangers, **processes})
    offered = room(one, *(lease("a", leased, pid=pid) for pid, (leased, _) in enumerate(holders, start=1)))
    if offered:
        taken = strangers + sum(max(leased, used) for leased, used in holders) + offered
        assert taken == total - RESERVE


def test_best_fit_is_the_device_with_least_left_over() -> None:
    devices = [device("a", total_mb=1000), device("b", total_mb=600, index=1), device("c", total_mb=2000, index=2)]
    assert placed(devices, [], 400) == ["b"]
    assert placed(devices, [], 700) == ["a"]
    assert placed(devices, [lease("c", 1400)], 400) == ["b"]
    assert placed(devices, [lease("c", 1450)], 400) == ["c"]


def test_equal_fits_go_to_the_first_device() -> None:
    assert placed([device("b", index=1), device("a", index=0)], [], 400) == ["a"]


def test_several_devices_are_leased_all_or_none() -> None:
    devices = [device("a", total_mb=1000), device("b", total_mb=1000, index=1)]
    assert sorted(placed(devices, [], 400, device_count=2)) == ["a", "b"]
    assert refusal(devices, [lease("b", 700)], 400, device_count=2).kind is ErrorKind.OVERLOADED


def test_exclusive_lease_shares_its_device_with_no_other() -> None:
    devices = [device("a", total_mb=1000), device("b", total_mb=2000, index=1)]
    assert placed(devices, [lease("a", 1)], 400, exclusive=True) == ["b"]
    assert placed(devices, [lease("a", 1, exclusive=True)], 400) == ["b"]
    both = [lease("a", 1, exclusive=True), lease("b", 1)]
    assert refusal(devices, both, 400, exclusive=True).kind is ErrorKind.OVERLOADED


def test_retry_hint_is_the_first_end_of_a_lease_on_a_fitting_device() -> None:
    devices = [device("small", total_mb=300), device("big", total_mb=1000, index=1)]
    leases = [lease("small", 100, expires=NOW + 5), lease("big", 500, expires=NOW + 40), lease("big", 300)]
    error = refusal(devices, leases, 400)
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_s == pytest.approx(40)


def test_memory_used_by_strangers_gives_a_retry_hint() -> None:
    error = refusal([device("a", total_mb=1000, used_mb=900)], [], 400)
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_s is not None


def test_request_larger_than_any_device_names_the_maximum() -> None:
    error = refusal([device("a", total_mb=1000), device("b", total_mb=2000, index=1)], [lease("b", 1900)], 1901)
    assert error.kind is ErrorKind.INPUT_TOO_LARGE
    assert error.violations[0].field == "memory_mb"
    assert "1900 MiB" in error.message


def test_request_for_too_many_devices_names_the_maximum() -> None:
    error = refusal([device("a", total_mb=1000), device("b", total_mb=200, index=1)], [], 400, device_count=2)
    assert (error.kind, error.violations[0].field) == (ErrorKind.INPUT_TOO_LARGE, "device_count")


def test_lease_uses_only_the_named_devices() -> None:
    devices = [device("a", total_mb=600), device("b", total_mb=1000, index=1)]
    assert placed(devices, [], 400, device_uuids=frozenset({"b"})) == ["b"]
    assert refusal(devices, [], 400, device_uuids=frozenset({"x"})).kind is ErrorKind.NOT_FOUND
    request = LeaseRequest(memory_mb=1, holder="h", ttl_s=60, device_uuids=frozenset({"gone"}))
    with pytest.raises(TorchlessError) as caught:
        choose_devices(request, devices, [], reserve_mb=0, now=NOW, lost_uuids=frozenset({"gone"}))
    assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE


def test_a_gpu_in_mig_mode_is_leased_by_its_instances() -> None:
    whole = replace(device("gpu"), mig_enabled=True)
    instances = [
        replace(device(f"mig{n}", total_mb=size), parent_uuid="gpu", mig_index=n) for n, size in enumerate((500, 900))
    ]
    assert placed([whole, *instances], [], 600) == ["mig1"]
    assert placed([whole, *instances], [], 300) == ["mig0"]
    assert refusal([whole, *instances], [], 5000).kind is ErrorKind.INPUT_TOO_LARGE
    named = refusal([whole, *instances], [], 300, device_uuids=frozenset({"gpu"}))
    assert (named.kind, named.violations[0].field) == (ErrorKind.INVALID_INPUT, "device_uuids")


def test_devices_that_cannot_be_read_are_not_leased() -> None:
    faulty = replace(device("a"), memory=None, fault="it does not answer")
    assert placed([faulty, device("b", index=1)], [], 400) == ["b"]
    assert refusal([faulty], [], 400).kind is ErrorKind.GPU_UNAVAILABLE
