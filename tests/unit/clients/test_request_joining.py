"""Joining of small requests: which ones share a call, and that none fails because of another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.request_joining import Joining, JoiningSettings
from torchless.contracts.errors import ErrorKind, TorchlessError, invalid_input

Answer = list[str]


class Service:
    """Answers texts in capitals, once it is let; refuses calls that hold the text `bad`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.contexts: list[CallContext] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.failure: TorchlessError | None = None

    async def call(self, texts: Sequence[str], key: str, context: CallContext) -> Answer:
        self.calls.append(list(texts))
        self.contexts.append(context)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        if "bad" in texts:
            raise invalid_input(("texts", list(texts).index("bad")), "is bad")
        return [text.upper() for text in texts]


class Client:
    """Requests to embed by one `Joining` over one endpoint, at most one call at a time without joining."""

    def __init__(self, **settings: float) -> None:
        self.service = Service()
        joining = JoiningSettings.model_validate(
            {"calls_per_endpoint": 1, "max_texts": 2, "max_joined_texts": 4, **settings}
        )
        self.joining: Joining[str, Answer] = Joining(
            self.service.call, lambda answer, start, stop: answer[start:stop], lambda: 1, joining
        )

    def ask(
        self, *texts: str, key: str = "", tenant: str = "", timeout_s: float = 30, request_id: str = ""
    ) -> asyncio.Task[Answer]:
        context = CallContext(request_id, tenant)
        return asyncio.create_task(self.joining.answer(texts, key, context, Deadline.after(timeout_s)))

    def sent_ids(self) -> list[str]:
        """The metadata `x-request-id` of each call."""
        return [dict(context.metadata()).get("x-request-id", "") for context in self.service.contexts]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_single_request_is_sent_at_once() -> None:
    client = Client()
    client.service.gate.set()
    assert await client.ask("a") == ["A"]
    assert client.service.calls == [["a"]]


async def test_requests_during_a_call_share_the_next_one() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    others = [client.ask("b", "c"), client.ask("d")]
    await settle()
    assert client.service.calls == [["a"]]
    client.service.gate.set()
    assert await asyncio.gather(first, *others) == [["A"], ["B", "C"], ["D"]]
    assert client.service.calls == [["a"], ["b", "c", "d"]]


async def test_joined_call_carries_the_id_of_each_request() -> None:
    client = Client()
    tasks = [client.ask("a", request_id="first")]
    await settle()
    tasks += [client.ask("b", request_id="b"), client.ask("c"), client.ask("d", request_id="d")]
    await settle()
    client.service.gate.set()
    await asyncio.gather(*tasks)
    assert client.sent_ids() == ["first", "b,d"]


async def test_request_sent_again_alone_carries_only_its_id() -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask("b", request_id="b"), client.ask("bad", request_id="bad")]
    await settle()
    client.service.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert client.sent_ids()[1:] == ["b,bad", "b", "bad"]


async def test_ids_of_joined_requests_are_limited_without_losing_one() -> None:
    client = Client(max_joined_texts=1000)
    ids = [f"{number:0128}" for number in range(100)]
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask(f"{number}", request_id=each) for number, each in enumerate(ids)]
    await settle()
    client.service.gate.set()
    await asyncio.gather(*tasks)
    _, *sent = client.sent_ids()
    assert max(map(len, sent)) <= 4096
    assert [each for one in sent for each in one.split(",")] == ids


async def test_joined_call_takes_the_oldest_requests_up_to_its_limit() -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask(f"{n}", f"{n}") for n in range(3)]
    await settle()
    client.service.gate.set()
    await asyncio.gather(*tasks)
    assert client.service.calls[-1] == ["0", "0", "1", "1"]


async def test_requests_past_the_next_calls_are_sent_at_once() -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask(f"{n}", f"{n}") for n in range(4)]
    await settle()
    assert client.service.calls == [["a"], ["2", "2"], ["3", "3"]]
    client.service.gate.set()
    assert await asyncio.gather(*tasks) == [["A"], *([f"{n}", f"{n}"] for n in range(4))]


async def test_slow_service_gets_fewer_texts_per_call() -> None:
    client = Client(max_joined_texts=100, max_duration_s=0.05)
    task = client.ask("a")
    await asyncio.sleep(0.02)
    client.service.gate.set()
    await task
    assert client.joining._max_texts() == 2
    for _ in range(30):
        await client.ask("a", "b")
    assert client.joining._max_texts() == 100


@pytest.mark.parametrize("difference", [{"key": "other"}, {"tenant": "other"}])
async def test_only_requests_with_equal_options_and_tenant_share_a_call(difference: dict[str, str]) -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask("b"), client.ask("c", **difference)]
    await settle()
    assert client.service.calls == [["a"], ["c"]]
    client.service.gate.set()
    await asyncio.gather(*tasks)
    assert ["b", "c"] not in client.service.calls


async def test_invalid_text_fails_only_its_own_request_with_its_own_index() -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask("b"), client.ask("c", "bad"), client.ask("d")]
    await settle()
    client.service.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [["A"], ["B"], ["D"]]
    assert isinstance(answers[2], TorchlessError)
    assert answers[2].violations[0].field == "texts[1]"


async def test_service_failure_fails_all_joined_requests_without_retries() -> None:
    client = Client()
    tasks = [client.ask("a")]
    await settle()
    tasks += [client.ask("b"), client.ask("c")]
    await settle()
    client.service.failure = TorchlessError(ErrorKind.UNREACHABLE, "gone")
    client.service.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(each, "kind", None) for each in answers] == [ErrorKind.UNREACHABLE] * 3
    assert client.service.calls == [["a"], ["b", "c"]]
    assert answers[1] is not answers[2]


async def test_cancelled_request_leaves_the_joined_call_until_the_last_one_leaves() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    others = [client.ask("b"), client.ask("c")]
    await settle()
    first.cancel()
    await settle()
    assert client.service.calls[-1] == ["b", "c"]
    cancelled = client.service.cancelled
    others[0].cancel()
    await settle()
    assert client.service.cancelled == cancelled
    others[1].cancel()
    await settle()
    assert client.service.cancelled == cancelled + 1
    client.service.gate.set()
    assert await client.ask("d") == ["D"]


async def test_request_cancelled_while_waiting_is_not_sent() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    gone, stays = client.ask("b"), client.ask("c")
    await settle()
    gone.cancel()
    await settle()
    client.service.gate.set()
    assert await asyncio.gather(first, stays) == [["A"], ["C"]]
    assert client.service.calls == [["a"], ["c"]]


async def test_requests_keep_their_deadlines_and_the_call_has_the_longest() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    short, long = client.ask("b", timeout_s=0.05), client.ask("c", timeout_s=20)
    with pytest.raises(TorchlessError) as caught:
        await short
    assert caught.value.kind is ErrorKind.DEADLINE
    later = client.ask("d", timeout_s=10)
    await settle()
    client.service.gate.set()
    assert await asyncio.gather(first, long, later) == [["A"], ["C"], ["D"]]
    assert client.service.calls[-1] == ["c", "d"]
    deadline = client.service.contexts[-1].deadline
    assert deadline is not None
    assert 15 < deadline.remaining_s <= 20


async def test_defect_answers_all_waiting_requests() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    waiting = client.ask("b")
    await settle()
    client.joining._part = lambda answer, start, stop: 1 / 0  # type: ignore[assignment, return-value]
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    client.service.gate.set()
    await first
    with pytest.raises(TorchlessError) as caught:
        await waiting
    assert caught.value.kind is ErrorKind.INTERNAL
    assert await client.ask("c") == ["C"]


async def test_closing_ends_calls_and_waiting_requests() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    waiting = client.ask("b")
    await settle()
    first.cancel()
    await settle()
    await client.joining.close()
    with pytest.raises(TorchlessError):
        await waiting
    assert not client.joining._tasks


async def test_closing_before_a_call_starts_answers_all_requests() -> None:
    client = Client()
    first = client.ask("a")
    await settle()
    joined = [client.ask("b", "c"), client.ask("d", "e")]
    await settle()
    # The next call is due at the next turn of the loop, and the client is closed before it.
    client.joining._call_ended(next(iter(client.joining._groups.values())), "", "")
    await client.joining.close()
    for waiting in joined:
        with pytest.raises(TorchlessError) as caught:
            await waiting
        assert caught.value.kind is ErrorKind.UNREACHABLE
    assert client.service.calls == [["a"]]
    first.cancel()


async def test_closing_before_the_next_call_answers_all_requests() -> None:
    client = Client()
    first, waiting = client.ask("a"), client.ask("b")
    await settle()
    await client.joining.close()
    with pytest.raises(TorchlessError, match="closed"):
        await waiting
    client.service.gate.set()
    assert await first == ["A"]
    assert client.service.calls == [["a"]]
    assert not client.joining._groups


async def test_hanging_call_delays_others_no_longer_than_calls_take() -> None:
    client = Client(max_duration_s=0.01)
    hung = client.ask("a")
    await settle()
    waiting = [client.ask("b"), client.ask("c")]
    while len(client.service.calls) < 2:  # noqa: ASYNC110  # within the deadline of those who wait
        await asyncio.sleep(0.001)
    assert client.service.calls == [["a"], ["b", "c"]]
    client.service.gate.set()
    assert await asyncio.gather(hung, *waiting) == [["A"], ["B"], ["C"]]
    await settle()
    assert not client.joining._groups


@pytest.mark.parametrize(("texts", "takes"), [(["a"], True), ([], False), (["a"] * 3, False), (["a" * 11], False)])
async def test_only_small_requests_are_joined(texts: list[str], takes: bool) -> None:
    assert Client(max_characters=10).joining.takes(texts) is takes
