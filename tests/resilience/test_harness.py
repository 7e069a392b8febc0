"""The harness itself: what it counts, and that it can find fault."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.resilience.case import Case
from tests.resilience.load import HttpTarget, arrivals, clients, outcome_of
from tests.resilience.outcomes import Outcome, Record, Tally, quantile
from tests.resilience.processes import Process, StubBento, metric_of
from tests.resilience.proxy import Proxy
from tests.resilience.stub.faults import FaultFile, Faults
from tests.resilience.stub.model import stub_vector
from tests.resilience.table import table_of
from tests.resilience.texts import FreshTexts, KnownTexts
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.contracts.errors import ErrorKind, TorchlessError
from torchless.process import EXIT_TEMPORARY

Answer = Callable[[str], bytes]


def answer(status: int, body: object, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def vector_answer(text: str, *headers: str) -> bytes:
    return answer(200, {"data": [{"embedding": stub_vector(text).tolist()}]}, *headers)


@asynccontextmanager
async def answering(how: Answer) -> AsyncIterator[int]:
    """An HTTP server that answers each request for a text with `how(text)`; an empty answer disconnects."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                given = how(json.loads(await reader.readexactly(length))["input"])
                if not given:
                    break
                writer.write(given)
        except asyncio.IncompleteReadError:
            pass  # the client is done
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def outcomes_of(how: Answer, *, refused_with_503: bool = False) -> Tally:
    tally = Tally()
    async with (
        answering(how) as port,
        clients(HttpTarget(port, deadline_s=0.2, refused_with_503=refused_with_503), FreshTexts(), tally, 2),
    ):
        await asyncio.sleep(0.1)
    assert tally.sent > 0
    assert sum(tally.counts().values()) == tally.sent
    return tally


async def test_vector_of_the_text_counts_as_an_answer() -> None:
    tally = await outcomes_of(vector_answer)
    assert tally.count(Outcome.ANSWERED) == tally.sent


@pytest.mark.parametrize(
    ("how", "outcome", "reason"),
    [
        (lambda text: vector_answer("another text"), Outcome.LOST, "200 with the vector of something else"),
        (lambda text: answer(200, {"data": []}), Outcome.LOST, "200 without a vector"),
        (lambda text: b"", Outcome.LOST, "no answer: ConnectionError"),
        (lambda text: answer(500, {"error": {"code": "internal_error"}}), Outcome.FAILED, "500 internal_error"),
        (lambda text: answer(504, {"error": {"code": "timeout"}}), Outcome.FAILED, "504 timeout"),
        (lambda text: answer(503, {}, "retry-after: 1"), Outcome.FAILED, "503 without a code"),
        (lambda text: answer(429, {}), Outcome.FAILED, "429 without a code"),
        (lambda text: answer(429, {}, "retry-after: 1"), Outcome.REFUSED, "429 without a code"),
        (lambda text: vector_answer(text, "x-torchless-degraded: embedding"), Outcome.DEGRADED, "degraded"),
    ],
)
async def test_other_outcomes_are_distinguished(how: Answer, outcome: Outcome, reason: str) -> None:
    tally = await outcomes_of(how)
    assert tally.counts()[outcome] == tally.sent
    assert set(tally.reasons(outcome)) == {reason}


async def test_503_counts_as_a_refusal_only_if_expected_and_with_retry_after() -> None:
    tally = await outcomes_of(lambda text: answer(503, {}, "retry-after: 1"), refused_with_503=True)
    assert tally.count(Outcome.REFUSED) == tally.sent
    tally = await outcomes_of(lambda text: answer(503, {}), refused_with_503=True)
    assert tally.count(Outcome.FAILED) == tally.sent


def test_answer_out_of_order_counts_as_lost() -> None:
    body = json.dumps({"data": [{"embedding": stub_vector("one text").tolist()}]}).encode()
    assert outcome_of(200, {}, body, "one text", FreshTexts()) == (Outcome.ANSWERED, "")
    assert outcome_of(200, {}, body, "two texts", FreshTexts())[0] is Outcome.LOST


async def test_missing_server_counts_as_lost() -> None:
    async with answering(vector_answer) as port:
        pass
    record = await HttpTarget(port).ask("a text", FreshTexts())
    assert (record.outcome, record.reason) == (Outcome.LOST, "no answer: ConnectionRefusedError")


async def test_arrivals_do_not_wait_for_answers() -> None:
    tally = Tally()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        target = HttpTarget(server.sockets[0].getsockname()[1], deadline_s=-2.5)
        async with arrivals(target, FreshTexts(), tally, rate=100):
            await asyncio.sleep(0.25)
    assert tally.sent >= 20
    assert tally.reasons(Outcome.LOST) == {"no answer: TimeoutError": tally.sent}


def test_case_fails_if_its_expectation_does_not_hold() -> None:
    case = Case("1. nothing fails")
    with pytest.raises(AssertionError, match="no request was sent"):
        case.none(Outcome.FAILED)
    case.tally.records += [Record(0, 0.1, Outcome.ANSWERED), Record(0, 0.3, Outcome.FAILED, "500 internal_error")]
    case.none(Outcome.LOST)
    with pytest.raises(AssertionError, match="500 internal_error"):
        case.none(Outcome.FAILED, Outcome.LOST)


def test_table_shows_the_counts() -> None:
    case = Case("3. three")
    case.tally.records += [Record(0, 0.1, Outcome.ANSWERED)] * 3 + [Record(0, 2.0, Outcome.REFUSED)] * 4
    case.figure("recovered in 1.2 s")
    console = Console(file=io.StringIO(), width=160)
    console.print(table_of([case.row(passed=True), Case("1. empty").row(passed=False)]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    cells = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in lines[3:]
        if "│" in line
    }
    assert list(cells) == ["1. empty", "3. three", "all"]
    assert cells["3. three"] == ["7", "3", "0", "4", "0", "0", "100.0", "100.0", "yes", "recovered in 1.2 s"]
    assert cells["1. empty"] == ["0", "0", "0", "0", "0", "0", "-", "-", "NO", ""]
    assert cells["all"][:6] == ["7", "3", "0", "4", "0", "0"]


def test_quantiles_are_measured_values() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile([1.0], 0.99) == 1.0
    assert math.isnan(quantile([], 0.5))


def test_metrics_are_found_by_their_whole_name() -> None:
    text = 'calls_total{method="A"} 2.0\ncalls_total{method="B"} 3.0\ncalls_total_created 9.0\n# HELP calls_total 7\n'
    assert metric_of(text, "calls_total") == 5.0
    assert metric_of(text, "calls_total", 'method="B"') == 3.0


def test_known_texts_repeat() -> None:
    texts = KnownTexts.of_stub(3)
    assert texts.text(0) == texts.text(3) != texts.text(1)
    assert texts.is_answer(texts.text(1), stub_vector(texts.text(1)))
    assert not texts.is_answer(texts.text(1), stub_vector(texts.text(2)))


def test_changed_faults_are_read_again(tmp_path: Path) -> None:
    file = FaultFile(tmp_path / "faults.json")
    reader = FaultFile(file.path)
    assert reader.read() == Faults()
    for faults in (Faults(slow=20), Faults(failure=ErrorKind.GPU_UNAVAILABLE), Faults()):
        file.write(faults)
        assert reader.read() == faults


async def test_proxy_forwards_bytes_and_can_corrupt_the_connection() -> None:
    async with answering(vector_answer) as port, Proxy(port) as proxy:
        texts = FreshTexts()
        target = HttpTarget(proxy.port, deadline_s=1.0)
        assert (await target.ask(texts.text(1), texts)).outcome is Outcome.ANSWERED
        proxy.latency_s = 0.05
        late = await target.ask(texts.text(2), texts)
        assert late.outcome is Outcome.ANSWERED
        assert late.seconds >= 0.1
        asking = asyncio.create_task(target.ask(texts.text(3), texts))
        await asyncio.sleep(0.02)
        proxy.reset_all()
        assert (await asking).reason == "no answer: ConnectionResetError"
        assert proxy.resets == 2
        proxy.latency_s, proxy.black_hole = 0.0, True
        swallowed = await HttpTarget(proxy.port, deadline_s=-2.8).ask(texts.text(4), texts)
        assert swallowed.reason == "no answer: TimeoutError"
        await target.close()


async def test_stub_service_follows_the_contract(trio: Sequence[StubBento]) -> None:
    stub = trio[0]
    async with EmbeddingClient(stub.address) as client:
        (model,) = await client.list_models()
        assert (model.id, model.revision) == ("tests/stub", "r1")
        made = await client.embed(["a text", "another text"])
        assert FreshTexts().is_answer("another text", made.vectors[1])
        before = await stub.metric("torchless_calls_total", 'method="GenerateEmbeddings"')
        assert before >= 1
        stub.set(Faults(failure=ErrorKind.INTERNAL))
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["a text"])
        assert caught.value.kind is ErrorKind.INTERNAL
        stub.set(Faults(slow=60))
        started = time.monotonic()
        await client.embed(["a text"])
        assert time.monotonic() - started >= 0.3


async def test_stub_service_refuses_past_its_queue(tmp_path: Path, ended: Callable[[Process], None]) -> None:
    stub = StubBento("small", tmp_path, text_ms=100, BATCHING__MAX_WAITING_REQUESTS="2")
    ended(stub)
    await stub.start()
    async with EmbeddingClient(stub.address) as client:
        calls = [client.embed([f"text {n}"], context=CallContext(deadline=Deadline.after(5))) for n in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, TorchlessError)]
    assert 0 < len(errors) < 20
    assert {error.kind for error in errors} == {ErrorKind.OVERLOADED}
    assert all(error.retry_after_s for error in errors)


async def test_processes_are_killed_frozen_and_started_again(trio: Sequence[StubBento]) -> None:
    stub = trio[1]
    assert [process.pid for process in stub.family()] == [stub.pid]
    stub.freeze()
    assert not await stub.answers()
    stub.thaw()
    await stub.until_it_answers()
    await stub.restart()
    stub.kill()
    assert not await stub.answers()
    await stub.start()
    assert stub.memory_mib() > 10
    assert stub.descriptors() > 5


async def test_bento_that_loses_its_device_says_so_and_exits_to_be_started_again(tmp_path: Path) -> None:
    stub = StubBento("lost", tmp_path, FAILURE_EXIT_S="1", LOG__FORMAT="text")
    await stub.start()
    try:
        stub.set(Faults(failure=ErrorKind.GPU_UNAVAILABLE))
        async with EmbeddingClient(stub.address) as client:
            with pytest.raises(TorchlessError) as caught:
                await client.embed(["a"])
            assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE
            obstacle = await client.obstacle()
            assert obstacle is not None
            assert (obstacle.kind, obstacle.message) == (caught.value.kind, caught.value.message)
        await until(lambda: not stub.alive, "it exits")
        assert await stub.terminate() == EXIT_TEMPORARY  # Popen does not signal a process that has ended
        said = [line for line in stub.log.read_text().splitlines() if "cannot serve: " in line]
        assert len(said) == 1
        assert said[0].endswith(f"exits with status {EXIT_TEMPORARY} in 1 s")
    finally:
        stub.end()
