"""The blocking clients against real gRPC servers; their exit in separate processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.waiting import wait_until
from torchless.clients.base import CapabilityClient
from torchless.clients.call import CallContext
from torchless.clients.deadline import Deadline
from torchless.clients.embedding import EmbeddingClient, Embeddings
from torchless.clients.gpu import GPUClient
from torchless.clients.reranking import RerankingClient
from torchless.clients.settings import ClientSettings
from torchless.clients.sync import SyncEmbeddingClient, SyncGPUClient, SyncRerankingClient, background, generate
from torchless.clients.sync.base import SyncClient
from torchless.clients.testing import EmbeddingService, GPUService, RerankingService, vector_of
from torchless.contracts.embedding.v1 import embedding_pb2 as pb
from torchless.contracts.errors import ErrorKind, TorchlessError

ROOT = Path(__file__).parents[3]
PATIENCE_S = 20.0
PAIRS: list[tuple[type[SyncClient[Any]], type[CapabilityClient]]] = [
    (SyncEmbeddingClient, EmbeddingClient),
    (SyncRerankingClient, RerankingClient),
    (SyncGPUClient, GPUClient),
]


class Service(EmbeddingService):
    """Refuses texts that are `refuse`, and fails on texts that are `break`."""

    def _embed(self, request: pb.GenerateEmbeddingsRequest) -> pb.GenerateEmbeddingsResponse:
        if "break" in request.texts:
            raise ValueError
        if "refuse" in request.texts:
            raise TorchlessError(ErrorKind.INVALID_INPUT, "refused")
        return super()._embed(request)


@pytest.fixture(scope="module")
def _service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def service(_service: Service) -> Service:
    _service.reset()
    return _service


@pytest.fixture
def client(service: Service) -> Iterator[SyncEmbeddingClient]:
    with SyncEmbeddingClient(ClientSettings(address=service.address)) as client:
        yield client


def test_generated_clients_are_current() -> None:
    assert generate.stale() == []


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_blocking_clients_have_the_methods_and_types_of_the_asynchronous_ones(
    blocking: type[SyncClient[Any]], asynchronous: type[CapabilityClient]
) -> None:
    def methods(kind: type) -> dict[str, str]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: str(inspect.signature(method)) for name, method in found if name == "__init__" or name[0] != "_"}

    def blocks(signature: str) -> str:
        return re.sub(r"AsyncGenerator\[(.*), None\]", r"Generator[\1, None, None]", signature).replace("Async", "")

    assert methods(blocking) == {name: blocks(signature) for name, signature in methods(asynchronous).items()}


def test_embedding_client_embeds_tokenizes_and_raises_the_kind_of_error(client: SyncEmbeddingClient) -> None:
    answer = client.embed(["a", "b c"])
    np.testing.assert_array_equal(answer.vectors, [vector_of("a"), vector_of("b c")])
    assert client.count_tokens(["a b"]) == [4]
    assert [token.text for token in client.tokenize(["a b"], add_special_tokens=False)[0]] == ["a", "b"]
    assert client.detokenize([[3, 4]]) == ["3 4"]
    assert [model.id for model in client.list_models()] == ["testing/hashes"]
    assert client.ready()
    assert len(client.states()) == 1
    with pytest.raises(TorchlessError) as caught:
        client.embed(["\ud800"])
    assert caught.value.kind is ErrorKind.INVALID_INPUT


def test_embedding_client_passes_on_context_and_settings(service: Service) -> None:
    service.latency_s = 60
    with SyncEmbeddingClient(ClientSettings(address=service.address, deadline_s=600)) as client:
        with pytest.raises(TorchlessError) as caught:
            client.embed(["a"], context=CallContext(deadline=Deadline.after(0.05), tenant="t"))
        assert caught.value.kind is ErrorKind.DEADLINE
        assert service.requests[-1].metadata["x-tenant-id"] == "t"
        client.reconfigure(ClientSettings(address=service.address, deadline_s=0.05))
        with pytest.raises(TorchlessError) as caught:
            client.embed(["a"])
    assert caught.value.kind is ErrorKind.DEADLINE


def test_reranking_client_reranks() -> None:
    with RerankingService() as service, SyncRerankingClient(service.address) as client:
        answer = client.rerank("swifts sleep", ["bread", "swifts sleep here"])
        assert list(answer.queries[0].order()) == [1, 0]
        assert len(client.rerank_batch([]).queries) == 0
        assert client.list_models()[0].id == "testing/words"


def test_gpu_client_leases_and_watches() -> None:
    with GPUService() as service, SyncGPUClient(service.address) as client:
        lease = client.allocate(100, "tests", device_uuids=["GPU-b"])
        assert client.renew(lease.id, ttl_s=60).id == lease.id
        with contextlib.closing(client.watch()) as updates:
            assert [each.id for each in next(updates).status.allocations] == [lease.id]
        assert client.release(lease.id).id == lease.id
        assert client.status().allocations == ()
        assert len(client.devices()) == 2


async def test_blocking_client_works_in_a_thread_that_runs_an_event_loop(client: SyncEmbeddingClient) -> None:
    assert asyncio.get_running_loop().is_running()
    assert client.embed(["a"]).vectors.shape == (1, 16)
    assert len(list(client.embed_stream([["a"], ["b"]]))) == 2


def test_threads_share_a_client_and_clients_share_one_background_thread(client: SyncEmbeddingClient) -> None:
    with SyncEmbeddingClient("127.0.0.1:1"), ThreadPoolExecutor(16) as pool:
        texts = [str(number) for number in range(200)]
        answers = list(pool.map(lambda text: client.embed([text]).vectors[0], texts))
        running = [each.name for each in threading.enumerate() if each.name == "torchless-clients"]
    np.testing.assert_array_equal(answers, [vector_of(text) for text in texts])
    assert len(running) == 1


def test_stream_answers_frames_in_order_and_reads_them_in_the_calling_thread(client: SyncEmbeddingClient) -> None:
    reader = threading.current_thread()

    def frames() -> Iterator[list[str]]:
        for number in range(50):
            assert threading.current_thread() is reader
            yield [f"a{number}"] if number != 7 else ["refuse"]

    answers = list(client.embed_stream(frames()))
    assert len(answers) == 50
    for number, answer in enumerate(answers):
        if number == 7:
            assert isinstance(answer, TorchlessError)
        else:
            assert isinstance(answer, Embeddings)
            np.testing.assert_array_equal(answer.vectors[0], vector_of(f"a{number}"))


def test_stream_of_no_frames_is_empty(client: SyncEmbeddingClient) -> None:
    assert list(client.embed_stream([])) == []


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: None])
def test_stream_left_early_is_cancelled_at_the_service_and_reads_no_further(
    client: SyncEmbeddingClient, service: Service, leave: Callable[[Any], None]
) -> None:
    read = 0

    def endless() -> Iterator[list[str]]:
        nonlocal read
        while True:
            read += 1
            yield ["a"]

    stream = client.embed_stream(endless())
    for _ in range(3):
        next(stream)
    assert service.in_flight == 1
    leave(stream)
    del stream  # or nothing holds it any longer
    gc.collect()
    wait_until(lambda: service.in_flight == 0)
    assert read < 200
    assert client.embed(["a"]).vectors.shape == (1, 16)


def test_stream_raises_errors_of_reading_frames_after_the_answers_before(client: SyncEmbeddingClient) -> None:
    def broken() -> Iterator[list[str]]:
        yield ["a"]
        raise LookupError("no more disk")

    stream = client.embed_stream(broken())
    next(stream)
    with pytest.raises(LookupError, match="no more disk"):
        next(stream)


def test_failure_of_the_service_ends_the_stream(client: SyncEmbeddingClient) -> None:
    stream = client.embed_stream([["a"], ["break"], ["b"]])
    next(stream)
    with pytest.raises(TorchlessError) as caught:
        list(stream)
    assert caught.value.kind is ErrorKind.INTERNAL


def test_ctrl_c_cancels_the_call_at_the_service(client: SyncEmbeddingClient, service: Service) -> None:
    service.latency_s = 60

    def press() -> None:
        wait_until(lambda: service.in_flight == 1)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        client.embed(["a"])
    thread.join()
    wait_until(lambda: service.cancelled == 1)


def test_closed_client_refuses_calls_and_may_be_closed_again(service: Service) -> None:
    client = SyncEmbeddingClient(ClientSettings(address=service.address))
    client.embed(["a"])
    client.close()
    client.close()
    for call in (lambda: client.embed(["a"]), lambda: list(client.embed_stream([["a"]]))):
        with pytest.raises(TorchlessError) as caught:
            call()
        assert caught.value.kind is ErrorKind.UNREACHABLE


def test_closing_a_client_ends_the_calls_of_other_threads(service: Service) -> None:
    service.latency_s = 60
    client = SyncEmbeddingClient(ClientSettings(address=service.address))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.embed, ["a"])
        wait_until(lambda: service.in_flight == 1)
        client.close()
        error = call.exception(PATIENCE_S)
    assert isinstance(error, TorchlessError)
    assert error.kind is ErrorKind.UNREACHABLE


def test_unreferenced_client_is_closed(service: Service) -> None:
    clients = background.current().clients
    before = len(clients)
    client = SyncEmbeddingClient(ClientSettings(address=service.address))
    client.embed(["a"])
    assert len(clients) == before + 1
    del client
    gc.collect()
    wait_until(lambda: len(clients) == before)


def test_invalid_settings_are_refused_when_the_client_is_created() -> None:
    with pytest.raises(ValueError, match="address"):
        SyncEmbeddingClient("a:1,a:1,:")


def program(code: str, address: str, **options: Any) -> subprocess.Popen[str]:
    head = f"""
import os, sys, threading
from torchless.clients.settings import ClientSettings
from torchless.clients.sync import SyncEmbeddingClient
address = ClientSettings(address={address!r})
"""
    command = [sys.executable, "-X", "dev", "-c", head + code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


LEFT_OPEN = "client = SyncEmbeddingClient(address)\nclient.embed(['a'])\n"
ENDINGS = {
    "left open": LEFT_OPEN,
    "never called": "client = SyncEmbeddingClient(address)\n",
    "nobody there": """
client = SyncEmbeddingClient("127.0.0.1:1")
client.start()
""",
    "in the middle of a stream": LEFT_OPEN + "stream = client.embed_stream(iter(lambda: ['a'], None))\nnext(stream)\n",
    "with a daemon thread that streams": LEFT_OPEN
    + """
first = threading.Event()
def work():
    for _ in client.embed_stream(iter(lambda: ['a'], None)):
        first.set()
threading.Thread(target=work, daemon=True).start()
first.wait()
""",
    "closed by an exit handler": LEFT_OPEN + "import atexit\natexit.register(client.close)\n",
}


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS.keys())
def test_program_exits_without_closing_its_clients(code: str, service: Service) -> None:
    process = program(code + "print('done')", service.address)
    printed, complaints = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("done\n", 0), complaints
    # The streaming thread gets the error, unless the program ends first; nothing else is logged.
    assert complaints.count("Traceback") <= ("thread" in code)
    assert "Warning" not in complaints


def test_interrupt_ends_the_program_and_its_call(service: Service) -> None:
    service.latency_s = 600
    process = program("SyncEmbeddingClient(address).embed(['a'])", service.address)
    wait_until(lambda: service.in_flight == 1)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: service.cancelled == 1)


def test_forked_process_gets_an_error_from_calls_and_exits(service: Service) -> None:
    code = """
def error_of(call):
    try:
        return call()
    except Exception as error:
        return f"{error.kind.value} {'spawn' in error.message}"
child = os.fork()
if child == 0:
    print(error_of(lambda: client.embed(["a"])), error_of(lambda: list(client.embed_stream([["a"]]))))
    print(error_of(lambda: SyncEmbeddingClient(address)))
    client.close()
    del client
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(status, len(client.embed(["a"]).vectors))
"""
    process = program(LEFT_OPEN + code, service.address)
    printed, complaints = process.communicate(timeout=60)
    assert printed.splitlines() == ["INTERNAL True INTERNAL True", "INTERNAL True", "0 1"], complaints


def test_fork_before_the_first_client_is_safe(service: Service) -> None:
    code = f"""
child = os.fork()
{LEFT_OPEN}
if child == 0:
    sys.exit(0)
print(os.waitpid(child, 0)[1])
"""
    printed, complaints = program(code, service.address).communicate(timeout=60)
    assert printed == "0\n", complaints


def test_examples_in_the_documentation_print_what_they_show(service: Service) -> None:
    page = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
    found = re.findall(r"```py\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert len(found) == page.count("```py\n") > 0
    with RerankingService() as reranking:
        for code, shown in found:
            assert "127.0.0.1:50051" in code or "Service() as service" in code
            here = code.replace("127.0.0.1:50051", service.address).replace("127.0.0.1:50052", reranking.address)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(here, "docs/clients.md", "exec"), {})
            assert printed.getvalue() == shown
