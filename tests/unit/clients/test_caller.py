"""A call over fake attempts: which endpoints it meets, and what it pays, without a wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient
from torchless.clients.endpoint_state import Health
from torchless.clients.endpoints.endpoint import Endpoint
from torchless.clients.metrics import ClientMetrics
from torchless.clients.settings import ClientSettings
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import ErrorKind, TorchlessError

Outcome = TorchlessError | pb.ListModelsResponse | None


class Script:
    """What happens at each attempt, in order, wherever it is made."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.timeouts: list[float] = []

    def __call__(self, request: Any, *, timeout: float, metadata: Any) -> Any:
        self.timeouts.append(timeout)
        outcome = self._outcomes.pop(0)

        async def attempt() -> Outcome:
            await asyncio.sleep(0)
            if isinstance(outcome, TorchlessError):
                raise outcome
            return outcome

        return attempt()

    @property
    def attempts(self) -> int:
        return len(self.timeouts)


GOOD = pb.ListModelsResponse()
Made = Callable[..., EmbeddingClient]


def failed(kind: ErrorKind) -> TorchlessError:
    return TorchlessError(kind, "it failed")


@pytest.fixture
async def make() -> AsyncIterator[Made]:
    """Makes clients of endpoints that are well and that nothing connects to."""
    clients: list[EmbeddingClient] = []

    def made(number: int, **settings: Any) -> EmbeddingClient:
        address = ",".join(f"127.0.0.1:{port}" for port in range(1, number + 1))
        options = {"retry": {"base_s": 0}, **settings}
        client = EmbeddingClient(ClientSettings(address=address, **options), ClientMetrics(CollectorRegistry()))
        client._pool._started = True  # no endpoint gets health checks
        for endpoint in client._pool.endpoints():
            endpoint.watch._become(Health.SERVING)
        clients.append(client)
        return client

    yield made
    for client in clients:
        await client.close()


async def call(client: EmbeddingClient, script: Script, *, repeatable: bool = True, deadline_s: float = 5) -> Any:
    return await client._caller.unary(
        lambda stub: script,  # type: ignore[arg-type, return-value]
        pb.ListModelsRequest(),
        CallContext(deadline=Deadline.after(deadline_s)),
        repeatable=repeatable,
    )


def met(client: EmbeddingClient, outcome: str) -> list[float]:
    """Attempts that ended so, at each endpoint."""
    attempts = client._metrics.attempts
    return [
        attempts.labels("embedding", endpoint.address, outcome)._value.get() for endpoint in client._pool.endpoints()
    ]


async def test_unreachable_call_is_tried_once_at_each_of_three_endpoints(make: Made) -> None:
    client = make(3)
    script = Script(*[failed(ErrorKind.UNREACHABLE)] * 3)
    with pytest.raises(TorchlessError, match="it failed"):
        await call(client, script)
    assert met(client, "UNREACHABLE") == [1, 1, 1]


async def test_single_endpoint_is_tried_again(make: Made) -> None:
    client = make(1)
    assert await call(client, Script(failed(ErrorKind.UNREACHABLE), failed(ErrorKind.UNREACHABLE), GOOD)) is GOOD
    assert met(client, "UNREACHABLE") == [2]


async def test_last_error_is_raised_when_no_endpoint_is_left(make: Made) -> None:
    client = make(1, breaker={"failures": 1})
    with pytest.raises(TorchlessError) as caught:
        await call(client, Script(failed(ErrorKind.UNREACHABLE)))
    assert caught.value.kind is ErrorKind.UNREACHABLE
    with pytest.raises(TorchlessError) as caught:
        await call(client, Script())
    assert caught.value.kind is ErrorKind.CIRCUIT_OPEN
    assert caught.value.retry_after_s == pytest.approx(60, abs=5)


@pytest.mark.parametrize("kind", [ErrorKind.UNREACHABLE, ErrorKind.GPU_UNAVAILABLE, ErrorKind.DEADLINE])
async def test_call_that_must_not_run_twice_is_not_retried(make: Made, kind: ErrorKind) -> None:
    script = Script(failed(kind))
    with pytest.raises(TorchlessError, match="it failed"):
        await call(make(3), script, repeatable=False)
    assert script.attempts == 1


async def test_refused_call_that_must_not_run_twice_is_retried_elsewhere(make: Made) -> None:
    script = Script(failed(ErrorKind.OVERLOADED), GOOD)
    assert await call(make(2), script, repeatable=False) is GOOD


async def test_refusal_after_a_lost_attempt_is_raised(make: Made) -> None:
    script = Script(failed(ErrorKind.UNREACHABLE), failed(ErrorKind.OVERLOADED))
    with pytest.raises(TorchlessError) as caught:
        await call(make(3), script)
    assert caught.value.kind is ErrorKind.OVERLOADED


async def test_the_deadline_shrinks_from_attempt_to_attempt(make: Made) -> None:
    script = Script(failed(ErrorKind.UNREACHABLE), failed(ErrorKind.UNREACHABLE), GOOD)
    await call(make(3), script, deadline_s=5)
    assert 5 >= script.timeouts[0] > script.timeouts[1] > script.timeouts[2] > 0


async def test_response_that_grpc_lost_at_the_deadline_is_a_deadline_error(make: Made) -> None:
    script = Script(None)
    with pytest.raises(TorchlessError) as caught:
        await call(make(1), script)
    assert (caught.value.kind, script.attempts) == (ErrorKind.DEADLINE, 1)


async def test_no_retry_pause_outlasts_the_deadline(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchless.clients.retry.random.uniform", lambda low, high: high)
    client = make(3, retry={"base_s": 10, "max_s": 10})
    script = Script(failed(ErrorKind.UNREACHABLE))
    with pytest.raises(TorchlessError, match="it failed"):
        await call(client, script, deadline_s=5)
    assert script.attempts == 1


async def test_new_settings_apply_to_later_calls(make: Made) -> None:
    client = make(1)
    await client.reconfigure(
        client._settings.model_copy(update={"retry": client._settings.retry.model_copy(update={"attempts": 1})})
    )
    script = Script(failed(ErrorKind.UNREACHABLE))
    with pytest.raises(TorchlessError, match="it failed"):
        await call(client, script)
    assert script.attempts == 1


async def test_defect_returns_ticket_and_permit(make: Made) -> None:
    client = make(1)

    def broken(stub: Any) -> Any:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await client._caller.unary(broken, pb.ListModelsRequest(), CallContext())
    (endpoint,) = client._pool.endpoints()
    assert isinstance(endpoint, Endpoint)
    assert endpoint.calls_in_flight == 0
    assert client._metrics.calls.labels("embedding", "CANCELLED")._value.get() == 3
