"""The memory level's promises, held over arbitrary traffic."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from torchless.clients.cache.entry import Entry
from torchless.clients.cache.memory import OVERHEAD, SHELF_OVERHEAD, MemoryLevel, size_of

BOUND = 3 * SHELF_OVERHEAD + 8 * OVERHEAD
TENANTS = ("a", "b", "c")

tenants = st.sampled_from(TENANTS)
digests = st.integers(0, 9).map(lambda number: b"%d" % number)
vectors = st.sampled_from([4, 40, 400, 1200, 12_000]).map(bytes)


def entry(vector: bytes = bytes(16)) -> Entry:
    return Entry(vector, tokens=3, made_at=int(time.time()))


class Told(MemoryLevel):
    """Tells whom it evicts from."""

    def __init__(self) -> None:
        super().__init__(BOUND, ttl_s=3600)
        self.evicted_from: list[str] = []

    def _evict(self) -> None:
        self.evicted_from.append(self._largest_shelf().tenant)
        super()._evict()


class AgainstAModel(RuleBasedStateMachine):
    """A plain list of what is held, used longest ago first, and the documented rules."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = Told()
        self.held: list[tuple[str, bytes, Entry]] = []

    def bytes_of(self, tenant: str) -> int:
        sizes = [size_of(each) for owner, _, each in self.held if owner == tenant]
        return sum(sizes) + SHELF_OVERHEAD if sizes else 0

    def find(self, tenant: str, digest: bytes) -> tuple[str, bytes, Entry] | None:
        return next((each for each in self.held if each[:2] == (tenant, digest)), None)

    @rule(tenant=tenants, digest=digests, vector=vectors)
    def put(self, tenant: str, digest: bytes, vector: bytes) -> None:
        new = entry(vector)
        if (old := self.find(tenant, digest)) is not None:
            self.held.remove(old)
        self.held.append((tenant, digest, new))
        self.subject.put(tenant, [digest], [new])
        self.follow()

    def follow(self) -> None:
        """Evicts while the rules want it, whose turn it was where two tenants hold as much."""
        while sum(map(self.bytes_of, TENANTS)) > BOUND:
            tenant = self.subject.evicted_from.pop(0)
            assert self.bytes_of(tenant) == max(map(self.bytes_of, TENANTS))
            self.held.remove(next(each for each in self.held if each[0] == tenant))
        assert not self.subject.evicted_from

    def peek(self, tenant: str) -> dict[bytes, Entry]:
        shelf = self.subject._shelves.get(tenant)
        return dict(shelf.entries) if shelf else {}

    @rule(tenant=tenants, wanted=st.lists(digests, max_size=5))
    def get(self, tenant: str, wanted: list[bytes]) -> None:
        found = self.subject.get(tenant, wanted)
        expected = {digest: each[2] for digest in wanted if (each := self.find(tenant, digest))}
        assert found == expected
        for digest in wanted:
            if (each := self.find(tenant, digest)) is not None:
                self.held.remove(each)
                self.held.append(each)

    @rule(tenant=tenants, digest=digests, vector=vectors)
    def put_older(self, tenant: str, digest: bytes, vector: bytes) -> None:
        new = entry(vector)
        taken = sum(map(self.bytes_of, TENANTS))
        more = size_of(new) + (0 if self.bytes_of(tenant) else SHELF_OVERHEAD)
        there = self.find(tenant, digest) is not None
        assert self.subject.put_older(tenant, digest, new) is (there or taken + more <= BOUND)
        if not there and taken + more <= BOUND:
            self.held.insert(0, (tenant, digest, new))

    @invariant()
    def holds_what_the_rules_say(self) -> None:
        for tenant in TENANTS:
            assert list(self.peek(tenant).items()) == [(d, e) for owner, d, e in self.held if owner == tenant]
        assert self.subject.entries == len(self.held)
        assert self.subject.bytes == sum(map(self.bytes_of, TENANTS)) <= BOUND


TestAgainstAModel = AgainstAModel.TestCase


@given(st.integers(1, 20), st.integers(200, 2000))
def test_flooding_tenant_evicts_no_small_tenant(small: int, flood: int) -> None:
    level = MemoryLevel(100 * (OVERHEAD + 100), ttl_s=3600)
    for number in range(small):
        level.put("small", [b"%d" % number], [entry(bytes(100))])
    for number in range(flood):
        level.put("flood", [b"%d" % number], [entry(bytes(100))])
    assert len(level.get("small", [b"%d" % number for number in range(small)])) == small
    assert level.get("flood", [b"%d" % (flood - 1)])


def test_tenants_share_memory_evenly() -> None:
    level = MemoryLevel(1_000_000, ttl_s=3600)
    for number in range(20_000):
        level.put(str(number % 50), [b"%d" % number], [entry(bytes(1536))])
    held = Counter({tenant: len(shelf.entries) for tenant, shelf in level._shelves.items()})
    assert len(held) == 50
    assert max(held.values()) - min(held.values()) <= 1
    assert len(level._largest) <= 64 + 4 * 50 + 1


def test_expired_entry_is_a_miss() -> None:
    level = MemoryLevel(1_000_000, ttl_s=60)
    now = int(time.time())
    level.put("a", [b"old", b"new"], [Entry(bytes(4), 1, now - 61), Entry(bytes(4), 1, now - 50)])
    assert list(level.get("a", [b"old", b"new"])) == [b"new"]
    assert level.entries == 1
    assert level.bytes == SHELF_OVERHEAD + OVERHEAD + 4


def test_nothing_is_stored_without_capacity() -> None:
    level = MemoryLevel(0, ttl_s=60)
    level.put("a", [b"1", b"2"], [entry(), entry()])
    assert level.get("a", [b"1", b"2"]) == {}
    assert (level.bytes, level.entries, level._shelves) == (0, 0, {})


MEASURE = """
import gc, os, sys, time
from torchless.clients.cache.entry import Entry
from torchless.clients.cache.memory import MemoryLevel

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

bound, width, tenants = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
level = MemoryLevel(bound, 3600)
before = resident()
now, worst = int(time.time()), 0
for turn in range(3):
    for number in range(bound // (width + 300)):
        level.put(f"{number % tenants:016x}", [os.urandom(32)], [Entry(os.urandom(width), 1000 + number, now)])
    worst = max(worst, resident() - before)
print(worst / bound, level.entries)
"""


def measured(width: int, tenants: int) -> float:
    """Resident memory that a full level takes, over its bound: filled and turned over twice."""
    command = [sys.executable, "-c", MEASURE, str(48 * 1024 * 1024), str(width), str(tenants)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    share, entries = done.stdout.split()
    assert int(entries) > 1000
    return float(share)


def test_limit_matches_the_memory_of_the_process() -> None:
    assert 0.6 < measured(width=1536, tenants=1) < 1.3
    assert 0.6 < measured(width=16384, tenants=20) < 1.3


def test_limit_holds_for_small_vectors_and_many_tenants() -> None:
    assert 0.6 < measured(width=256, tenants=1) < 1.3
    assert 0.5 < measured(width=256, tenants=8000) < 1.3
