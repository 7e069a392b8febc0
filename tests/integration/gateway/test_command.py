"""The `torchless` command with a gateway that requires an API key, and with one that does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.integration.clients.services import Service, Told
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.gpu_server import GPUServer
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.cli.batches import CALLS_IN_FLIGHT, MAX_TEXTS
from torchless.cli.embed import Source, embed_texts
from torchless.cli.main import app
from torchless.cli.provenance import Provenance
from torchless.clients.sync import background
from torchless.clients.testing import EmbeddingService
from torchless.clients.timings import Timings
from torchless.contracts.errors import ErrorKind, TorchlessError

KEY = "the-key-of-the-gateway"
LONG = " ".join(["word"] * 500)
CALLS = [["embed", "one"], ["rerank", "one", "two", "three"], ["models"]]


@pytest.fixture(scope="module")
def locked(
    _embedding_server: EmbeddingService, _reranking_server: RerankingServer, _gpu_server: GPUServer, gateway: Gateway
) -> Iterator[str]:
    """Base URL of a gateway that requires `KEY`."""
    servers = {"embedding": _embedding_server, "reranking": _reranking_server, "gpu": _gpu_server}
    channels = {name: {"address": server.address} for name, server in servers.items()}
    with gateway(**channels, auth={"api_keys": [KEY]}) as client:
        yield str(client.base_url)


def run(url: str, *arguments: str, variable: str | None = None) -> tuple[int, str]:
    """Exit status and output of the command, in one line."""
    environment = {"TORCHLESS_GATEWAY_URL": url, "TORCHLESS_API_KEY": variable, "COLUMNS": "200"}
    done = CliRunner().invoke(app, list(arguments), env=environment)
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("call", [*CALLS, ["status"]], ids=lambda call: call[0])
def test_the_api_key_is_sent(locked: str, call: list[str]) -> None:
    for given, variable in (([], KEY), (["--key", KEY], None), (["--key", KEY], "another-key")):
        status, printed = run(locked, *call, *given, variable=variable)
        assert status == 0, printed
        assert KEY not in printed
        assert "key" not in printed


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_commands_without_a_valid_key_say_how_to_set_one(locked: str, call: list[str]) -> None:
    status, printed = run(locked, *call)
    assert (status, "the gateway requires an API key: " in printed) == (1, True)
    assert "set TORCHLESS_API_KEY or --key to a valid one" in printed
    status, printed = run(locked, *call, variable="a-secret-that-is-wrong")
    assert (status, "the gateway does not accept this API key: " in printed) == (1, True)
    assert "a-secret" not in printed


@pytest.mark.parametrize("variable", [None, "a-secret-that-is-wrong"])
def test_status_shows_health_without_a_key(locked: str, variable: str | None) -> None:
    status, printed = run(locked, "status", variable=variable)
    assert status == 0
    assert printed.count(" ready ") == 3
    assert "details are not available: the gateway" in printed
    assert "TORCHLESS_API_KEY" in printed
    assert "a-secret" not in printed


@pytest.mark.parametrize("call", [*CALLS, ["status"]], ids=lambda call: call[0])
@pytest.mark.parametrize("key", ["schlüssel-zwei", "with-a\tbreak", "a-secret-that-ends-in "])
def test_a_key_with_invalid_characters_is_refused(locked: str, call: list[str], key: str) -> None:
    status, printed = run(locked, *call, variable=key)
    assert (status, "the API key is not valid: " in printed) == (1, True)
    assert key.strip() not in printed


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0])
def test_a_key_is_ignored_by_a_gateway_that_requires_none(http: httpx.Client, call: list[str]) -> None:
    assert run(str(http.base_url), *call, variable=KEY)[0] == 0


@pytest.mark.parametrize("command", ["embed", "rerank", "models", "status"])
def test_help_does_not_show_the_api_key(command: str) -> None:
    status, printed = run("http://127.0.0.1:1", command, "--help", variable=KEY)
    assert status == 0
    assert "TORCHLESS_API_KEY" in printed
    assert KEY not in printed


def test_status_shows_endpoints_and_their_breakers(gateway: Gateway, embedding: EmbeddingService) -> None:
    settings = {"address": embedding.address, "breaker": {"failures": 1}, "retry": {"attempts": 1}}
    with gateway(embedding=settings) as client:
        _, printed = run(str(client.base_url), "status")
        assert f"{embedding.address} │ serving │ 0 in flight, breaker closed" in printed
        embedding.error = TorchlessError(ErrorKind.UNREACHABLE, "out of order")
        assert client.post("/embed", json={"inputs": "a"}).status_code == 503
        _, printed = run(str(client.base_url), "status")
    assert "0 in flight, breaker open, next probe in " in printed
    assert "opened 1 time" in printed


def test_readiness_and_status_have_the_reason_that_a_service_gives(gateway: Gateway) -> None:
    reason = "the service is loading the model m; retry shortly"
    loop, service = background.current(), Service(Told.REASON)
    loop.run(service.start())
    loop.run(service.tell(serving=False))
    try:
        with gateway(embedding={"address": service.address}) as client:
            answer = client.get("/health/ready")
            status, printed = run(str(client.base_url), "status")
    finally:
        loop.run(service.stop())
    assert (answer.status_code, answer.json()["services"]["embedding"]["reason"]) == (503, reason)
    assert (status, reason in printed) == (1, True)


def test_models_lists_models_and_aliases(gateway: Gateway, embedding: EmbeddingService) -> None:
    channels = {"embedding": {"address": embedding.address}, "models": {"aliases": {"my-alias": ""}}}
    with gateway(**channels) as client:
        wanted = client.get("/v1/models").json()["data"]
        status, printed = run(str(client.base_url), "models")
        assert status == 0
        assert all(model["id"] in printed for model in wanted)
        assert "my-alias" in printed
        _, printed = run(str(client.base_url), "models", "--json")
    assert [json.loads(line) for line in printed.replace("} {", "}\n{").splitlines()] == wanted


def test_status_as_json_has_services_endpoints_and_breakers(gateway: Gateway, embedding: EmbeddingService) -> None:
    with gateway(embedding={"address": embedding.address}, reranking={"address": ""}, gpu={"address": ""}) as client:
        status, printed = run(str(client.base_url), "status", "--json")
    found = json.loads(printed)
    assert (status, found["ready"]) == (0, True)
    (endpoint,) = found["services"]["embedding"]["endpoints"]
    assert endpoint["address"] == embedding.address
    assert endpoint["breaker"] == "closed"


def test_status_watch_reports_requests_per_second(gateway: Gateway, embedding: EmbeddingService) -> None:
    embedding.timings = Timings(queue_ms=3.0, inference_ms=1.0)
    with gateway(embedding={"address": embedding.address}) as client:
        command = [sys.executable, "-m", "torchless.cli", "status", "--watch", "--json", "--interval", "0.2"]
        with subprocess.Popen(
            [*command, "--gateway", str(client.base_url)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["routes"] == []
            for number in range(5):
                client.post("/embed", json={"inputs": f"text {number}"}).raise_for_status()
            routes: list[dict[str, Any]] = []
            while not routes:
                moment = json.loads(watching.stdout.readline())
                routes = [route for route in moment["routes"] if route["route"] == "/embed"]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 0
            assert watching.stderr is not None
            assert watching.stderr.read() == ""
    assert 2.5 <= moment["queue_p50_ms"] <= moment["queue_p95_ms"] <= 5
    assert routes[0]["requests_per_s"] > 0 < routes[0]["p50_ms"] <= routes[0]["p95_ms"]


def test_embed_prints_the_vectors_of_long_input_in_its_order(gateway: Gateway, embedding: EmbeddingService) -> None:
    texts = [f"text {number}" for number in range(600)]
    with gateway(embedding={"address": embedding.address}) as client:
        environment = {"TORCHLESS_GATEWAY_URL": str(client.base_url)}
        done = CliRunner().invoke(app, ["embed", "--json"], input="\n".join(texts), env=environment)
        alone = client.post("/embed", json={"inputs": texts[555]}).json()[0]
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert lines[555]["vector"] == pytest.approx(alone, abs=1e-6)


def test_rerank_sorts_over_all_batches(locked: str) -> None:
    documents = [f"document {number}" for number in range(600)]
    environment = {"TORCHLESS_GATEWAY_URL": locked, "TORCHLESS_API_KEY": KEY}

    def lines(*options: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(
            app, ["rerank", "a query", "--json", *options], input="\n".join(documents), env=environment
        )
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    unsorted = lines("--unsorted")
    assert [(line["index"], line["document"]) for line in unsorted] == list(enumerate(documents))
    assert lines() == sorted(unsorted, key=lambda line: (-line["score"], line["index"]))
    assert lines("--top", "3") == lines()[:3]


def stderr_of(url: str, *arguments: str) -> str:
    environment = {"TORCHLESS_GATEWAY_URL": url, "TORCHLESS_API_KEY": KEY}
    done = CliRunner().invoke(app, list(arguments), env=environment)
    assert done.exit_code == 0, done.output
    return done.stderr


def test_embed_and_rerank_say_how_many_texts_were_truncated(locked: str, embedding: EmbeddingService) -> None:
    for over in ([], ["--address", embedding.address]):
        assert "truncated texts: 2;" in stderr_of(locked, "embed", *over, LONG, "one", LONG)
        assert stderr_of(locked, "embed", *over, "one") == ""
    assert "truncated documents, and the query once for each batch: 1;" in stderr_of(locked, "rerank", "q", "a", LONG)
    assert stderr_of(locked, "rerank", "q", "a") == ""


@pytest.mark.parametrize("over", ["HTTP", "gRPC"])
async def test_embed_says_that_the_model_changed_between_batches(gateway: Gateway, over: str) -> None:
    provenance = Provenance()
    with EmbeddingService() as service, gateway(embedding={"address": service.address}) as client:

        def texts() -> Iterator[str]:
            for number in range((CALLS_IN_FLIGHT + 3) * MAX_TEXTS):
                if number == (CALLS_IN_FLIGHT + 2) * MAX_TEXTS:  # read after the first answer
                    service.model = replace(service.model, revision="2")
                yield f"text {number}"

        source = Source(str(client.base_url), service.address if over == "gRPC" else "")
        async for _ in embed_texts(texts(), source, provenance, model="", dimensions=0):
            pass
    assert provenance.warnings("texts") == [
        "the model changed during the run: results of the revisions 1 and 2 cannot be compared"
    ]
