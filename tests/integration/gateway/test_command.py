"""The `torchless` command with a gateway that requires an API key, and with one that does not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.gpu_server import GPUServer
from tests.integration.gateway.reranking_server import RerankingServer
from torchless.cli.main import app
from torchless.clients.testing import EmbeddingService
from torchless.contracts.errors import ErrorKind, TorchlessError

KEY = "the-key-of-the-gateway"
CALLS = [["embed", "one"], ["rerank", "one", "two", "three"]]


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


@pytest.mark.parametrize("command", ["embed", "rerank", "status"])
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
