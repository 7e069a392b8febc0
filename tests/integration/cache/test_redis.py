"""Two levels with a real Redis: shared, restarted, killed, halted, full of foreign values."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from tests.integration.cache.conftest import MakeCache
from tests.integration.cache.redis_server import PASSWORD, RedisServer
from tests.unit.clients.cache.service import HashService, answer_of, same
from tests.waiting import until
from torchless.clients.cache.entry import pack, unpack
from torchless.clients.call import CallContext
from torchless.contracts.errors import ErrorKind, TorchlessError

pytestmark = pytest.mark.timeout(60)
ALICE = CallContext(tenant="alice")
BOB = CallContext(tenant="bob")
ENTRIES = "torchless:2:*:*:*"
UNREACHABLE = TorchlessError(ErrorKind.UNREACHABLE, "down")


async def test_entries_written_by_one_process_are_read_by_another(make_cache: MakeCache, service: HashService) -> None:
    writer, reader = make_cache(), make_cache(warm_mib=0)
    await asyncio.gather(writer.is_up(), reader.is_up())
    await writer.cache.embed(["a", "b"])
    await writer.has_written(2)

    answer = await reader.cache.embed(["b", "new", "a"])
    assert same(answer.embeddings, answer_of(["b", "new", "a"]))
    assert (answer.hits, answer.misses) == (2, 1)
    assert service.calls == [["a", "b"], ["new"]]
    assert reader.value("lookups_total", level="redis", outcome="hit") == 2

    again = await reader.cache.embed(["a", "b"])
    assert same(again.embeddings, answer_of(["a", "b"]))
    assert reader.value("lookups_total", level="memory", outcome="hit") == 2, "what Redis had is in memory now"


async def test_redis_works_without_the_memory_level(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache(memory_mib=0)
    await cache.is_up()
    await cache.cache.embed(["a"] * 3 + ["b"])
    await cache.has_written(2)
    answer = await cache.cache.embed(["b", "a", "b"])
    assert same(answer.embeddings, answer_of(["b", "a", "b"]))
    assert (answer.hits, len(service.calls)) == (3, 1)
    assert cache.value("memory_bytes") == 0


async def test_tenants_share_nothing_in_redis(make_cache: MakeCache, redis: Redis) -> None:
    one, other = make_cache(), make_cache(warm_mib=0)
    await asyncio.gather(one.is_up(), other.is_up())
    await one.cache.embed(["a"], context=ALICE)
    await one.has_written(1)
    assert (await other.cache.embed(["a"], context=BOB)).hits == 0
    assert (await other.cache.embed(["a"])).hits == 0
    assert (await other.cache.embed(["a"], context=ALICE)).hits == 1
    await other.has_written(2)
    keys = [key async for key in redis.scan_iter(ENTRIES)]
    assert len({key.rsplit(b":", 2)[1] for key in keys}) == 3
    assert not any(name in key for key in keys for name in (b"alice", b"bob"))


async def test_entries_have_a_time_to_live(make_cache: MakeCache, redis: Redis) -> None:
    cache = make_cache(ttl_s=50)
    await cache.is_up()
    await cache.cache.embed(["a"])
    await cache.has_written(1)
    (key,) = [key async for key in redis.scan_iter(ENTRIES)]
    assert 40 < await redis.ttl(key) <= 50
    entry = unpack(await redis.get(key), key)
    assert entry is not None
    await redis.set(key, pack(entry._replace(made_at=entry.made_at - 2), key))
    shorter = make_cache(ttl_s=1, warm_mib=0)
    await shorter.is_up()
    assert (await shorter.cache.embed(["a"])).hits == 0, "an entry's age counts, whichever process wrote it"


async def test_invalid_values_are_misses(make_cache: MakeCache, redis: Redis) -> None:
    writer = make_cache()
    await writer.is_up()
    texts = ["cut", "altered", "foreign", "list", "swapped", "other", "good"]
    for text in texts:
        await writer.cache.embed([text])
    await writer.has_written(len(texts))
    keys: dict[str, tuple[bytes, bytes]] = {}
    for key in [key async for key in redis.scan_iter(ENTRIES)]:
        value = await redis.get(key)
        assert isinstance(value, bytes)
        assert isinstance(key, bytes)
        keys[next(t for t in texts if answer_of([t]).vectors.tobytes() in value)] = (key, value)

    await redis.set(keys["cut"][0], keys["cut"][1][:-4])
    await redis.set(keys["altered"][0], keys["altered"][1][:-1] + bytes([keys["altered"][1][-1] ^ 1]))
    await redis.set(keys["foreign"][0], "somebody else's")
    await redis.delete(keys["list"][0])
    await redis.rpush(keys["list"][0], "1", "2")
    await redis.set(keys["swapped"][0], keys["other"][1])

    reader = make_cache(warm_mib=0)
    await reader.is_up()
    answer = await reader.cache.embed(texts)
    assert same(answer.embeddings, answer_of(texts))
    assert answer.hits == 2
    assert reader.value("redis_corrupt_values_total") == 4
    assert reader.value("redis_up") == 1
    await reader.has_written(5)
    assert (await make_and_embed(make_cache, texts)) == len(texts), "they were written again"


async def make_and_embed(make_cache: MakeCache, texts: list[str]) -> int:
    cache = make_cache(warm_mib=0)
    await cache.is_up()
    return (await cache.cache.embed(texts)).hits


async def test_killed_redis_fails_no_request_and_is_used_again_after_its_return(
    make_cache: MakeCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "torchless")
    cache = make_cache()
    await cache.is_up()
    await cache.cache.embed(["a"])
    await cache.has_written(1)
    redis_server.kill()
    for number in range(50):
        texts = ["a", f"while it is gone {number}"]
        assert same((await cache.cache.embed(texts)).embeddings, answer_of(texts))
    assert cache.value("redis_up") == 0
    assert cache.value("redis_failures_total", cause="error") == 1, "after the first failure it is left alone"
    assert cache.value("redis_dropped_writes_total", cause="down") >= 49
    redis_server.start()
    await cache.is_up()
    await cache.cache.embed(["after"])
    await cache.has_written(2)
    assert PASSWORD not in caplog.text
    assert caplog.text.count("Redis failed") == 1, "a change of state is logged once"
    assert caplog.text.count("Redis answers") == 2


async def test_halted_redis_delays_requests_by_its_timeout_once(
    make_cache: MakeCache, redis_server: RedisServer
) -> None:
    cache = make_cache(redis_timeout_s=0.05)
    await cache.is_up()
    await cache.cache.embed(["a"])
    await cache.has_written(1)
    redis_server.halt()
    try:
        for number in range(200):
            texts = ["a", f"while it is halted {number}"]
            assert same((await cache.cache.embed(texts)).embeddings, answer_of(texts))
        assert cache.value("redis_failures_total", cause="timeout") == 1, "after the first no request waited"
        assert cache.value("redis_up") == 0
    finally:
        redis_server.go_on()
    await cache.is_up()
    assert same((await cache.cache.embed(["after"])).embeddings, answer_of(["after"]))
    await cache.has_written(2)


async def test_result_that_arrives_during_a_redis_lookup_is_not_computed_again(
    make_cache: MakeCache, redis_server: RedisServer, service: HashService
) -> None:
    cache = make_cache()
    await cache.is_up()
    service.gate = asyncio.Event()
    leader = asyncio.create_task(cache.cache.embed(["a"]))
    await until(lambda: bool(service.calls))
    redis_server.halt()
    try:
        second = asyncio.create_task(cache.cache.embed(["a"]))
        await asyncio.sleep(0.01)
        service.gate.set()
        await leader
        assert not second.done()
        assert same((await second).embeddings, answer_of(["a"]))
    finally:
        redis_server.go_on()
    assert service.calls == [["a"]]


async def test_redis_started_later_is_used(make_cache: MakeCache, redis_server: RedisServer) -> None:
    redis_server.kill()
    cache = make_cache()
    assert same((await cache.cache.embed(["a"])).embeddings, answer_of(["a"]))
    redis_server.start()
    await cache.is_up()
    await cache.cache.embed(["b"])
    await cache.has_written(1)


async def test_wrong_password_counts_as_redis_down(
    make_cache: MakeCache, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make_cache(redis_url=f"redis://:secret-of-mine@127.0.0.1:{redis_server.port}/0")
    assert same((await cache.cache.embed(["a"])).embeddings, answer_of(["a"]))
    await until(lambda: "does not answer" in caplog.text)
    assert cache.value("redis_up") == 0
    assert "secret-of-mine" not in caplog.text


async def test_full_redis_is_still_read(make_cache: MakeCache, redis: Redis) -> None:
    writer = make_cache()
    await writer.is_up()
    await writer.cache.embed(["a"])
    await writer.has_written(1)
    await redis.config_set("maxmemory", "1")
    await writer.cache.embed(["b"])
    await writer.has("redis_failures_total", 1, cause="error")
    reader = make_cache(warm_mib=0)
    await reader.is_up()
    assert (await reader.cache.embed(["a"])).hits == 1
    assert writer.value("redis_up") == 1
    await redis.config_set("maxmemory", "0")
    await writer.cache.embed(["c"])
    await writer.has_written(2)


async def test_writes_past_the_queue_limit_are_dropped_and_counted(
    make_cache: MakeCache, redis_server: RedisServer
) -> None:
    cache = make_cache(redis_queue_mib=0.01)
    await cache.is_up()
    texts = [str(number) for number in range(200)]
    assert same((await cache.cache.embed(texts)).embeddings, answer_of(texts))
    dropped = cache.value("redis_dropped_writes_total", cause="full")
    assert 150 < dropped < 200
    await cache.has_written(int(200 - dropped))


async def test_memory_is_warm_after_a_restart(make_cache: MakeCache, service: HashService) -> None:
    before = make_cache()
    await before.is_up()
    texts = [str(number) for number in range(300)]
    await before.cache.embed(texts, context=ALICE)
    await before.has_written(300)
    await before.cache.close()

    after = make_cache()
    await after.has("warmed_entries_total", 300)
    answer = await after.cache.embed(texts, context=ALICE)
    assert same(answer.embeddings, answer_of(texts))
    assert after.value("lookups_total", level="memory", outcome="hit") == 300
    assert len(service.calls) == 1
    assert (await after.cache.embed(texts[:1], context=BOB)).hits == 0


async def test_warming_reads_the_newest_entries_within_its_limit(make_cache: MakeCache) -> None:
    before = make_cache()
    await before.is_up()
    for generation in range(3):
        await before.cache.embed([f"{generation} {number}" for number in range(100)])
        await before.has_written(100 * (generation + 1))
        await asyncio.sleep(0.02)
    each = 400 + 64
    after = make_cache(warm_mib=100 * each / 1024 / 1024 + 0.0001)
    await after.has("warmed_entries_total", 100)
    await asyncio.sleep(0.05)
    assert after.value("warmed_entries_total") == 100
    await after.cache.embed([f"2 {number}" for number in range(100)])
    assert after.value("lookups_total", level="memory", outcome="hit") == 100


async def test_restarted_cache_serves_entries_from_redis_while_the_service_is_down(
    make_cache: MakeCache, service: HashService
) -> None:
    before = make_cache()
    await before.is_up()
    await before.cache.embed(["a", "b"], context=ALICE)
    await before.has_written(2)
    await before.cache.close()

    service.failure = UNREACHABLE
    after = make_cache(warm_mib=0)
    answer = await after.cache.embed(["b", "a"], context=ALICE)
    assert same(answer.embeddings, answer_of(["b", "a"]))
    assert answer.degraded
    with pytest.raises(TorchlessError) as caught:
        await after.cache.embed(["a", "new"], context=ALICE)
    assert caught.value.kind is ErrorKind.UNREACHABLE


async def test_entries_of_a_model_replaced_meanwhile_are_not_served_from_redis(
    make_cache: MakeCache, service: HashService
) -> None:
    before = make_cache()
    await before.is_up()
    await before.cache.embed(["a"])
    await before.has_written(1)
    await before.cache.close()
    service.revision = "r2"
    after = make_cache()
    assert same((await after.cache.embed(["a"])).embeddings, answer_of(["a"], revision="r2"))
    await after.is_up()
    assert same((await after.cache.embed(["a"])).embeddings, answer_of(["a"], revision="r2"))


async def test_namespaces_share_nothing(make_cache: MakeCache) -> None:
    one, other = make_cache(namespace="one"), make_cache(namespace="two")
    await asyncio.gather(one.is_up(), other.is_up())
    await one.cache.embed(["a"])
    await one.has_written(1)
    assert (await other.cache.embed(["a"])).hits == 0


async def test_closing_ends_every_task_and_connection(make_cache: MakeCache, redis: Redis) -> None:
    await redis.ping()
    cache = make_cache()
    await cache.is_up()
    await asyncio.gather(*(cache.cache.embed([str(number)]) for number in range(50)))
    await cache.cache.close()
    assert {each for each in asyncio.all_tasks() if each is not asyncio.current_task()} == set()
    await asyncio.sleep(0.05)
    assert len(await redis.client_list()) == 1


async def test_redis_connections_are_opened_before_requests_need_them(make_cache: MakeCache, redis: Redis) -> None:
    before = len(await redis.client_list())
    cache = make_cache(redis_connections=5)
    await cache.is_up()
    assert len(await redis.client_list()) == before + 5


async def test_redis_with_few_connections_is_used(make_cache: MakeCache, redis: Redis) -> None:
    await redis.config_set("maxclients", 3)
    cache = make_cache(redis_connections=5)
    await cache.is_up()


async def test_cancelled_requests_leave_no_redis_connection_in_use(make_cache: MakeCache, service: HashService) -> None:
    cache = make_cache(memory_mib=0, redis_connections=2)
    await cache.is_up()
    texts = [str(number) for number in range(40)]
    await cache.cache.embed(texts)
    await cache.has_written(40)
    for turn in range(100):
        asked = [asyncio.create_task(cache.cache.embed(texts[number:])) for number in range(8)]
        for _ in range(turn % 20):
            await asyncio.sleep(0)
        for each in asked[::2]:
            each.cancel()
        for number, answer in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
            if isinstance(answer, BaseException):
                assert isinstance(answer, asyncio.CancelledError)
                assert number % 2 == 0
            else:
                assert same(answer.embeddings, answer_of(texts[number:]))
                assert answer.misses == 0
    assert len(service.calls) == 1
    assert cache.value("redis_corrupt_values_total") == 0, "no reply went to another request"


async def test_closing_does_not_wait_for_cancelled_calls(make_cache: MakeCache) -> None:
    for turn in range(30):
        cache = make_cache()
        await cache.is_up()
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        await asyncio.gather(*(cache.cache.embed([f"{turn} {number}"]) for number in range(50)))
        async with asyncio.timeout(20):
            await cache.cache.close()
