"""Pages of other origins in a real browser, against a gateway on loopback without API keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.chromium import Chromium
from tests.integration.gateway.conftest import Gateway
from torchless.clients.testing import EmbeddingService

LEASE = '{"memory_mb": 1, "holder": "a web page"}'


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title>")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the name in the base class
        """Writes nothing."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """Origin of an empty page that is not the gateway's; evil.example points to this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://evil.example:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser for which the name evil.example has been rebound to 127.0.0.1."""
    folder = tmp_path_factory.mktemp("chromium")
    with Chromium(folder, "--host-resolver-rules=MAP evil.example 127.0.0.1") as running:
        yield running


def leases(http: httpx.Client) -> int:
    return len(http.get("/v1/gpu/status").json()["allocations"])


@pytest.mark.parametrize("body", ["body", "new Blob([body])", "new URLSearchParams({ [body]: '' })"])
def test_a_page_cannot_lease_memory_by_a_request_that_browsers_send_unasked(
    browser: Chromium, page: str, http: httpx.Client, body: str
) -> None:
    browser.open(page)
    url = f"{http.base_url}/v1/gpu/allocations"
    sent = browser.evaluate(
        f"{{ const body = '{LEASE}'; fetch('{url}', {{ method: 'POST', mode: 'no-cors', body: {body} }})"
        ".then((answer) => answer.type) }"
    )
    assert sent == "opaque", "the browser sent it"
    assert leases(http) == 0


def test_a_page_cannot_send_json_or_read_answers(browser: Chromium, page: str, http: httpx.Client) -> None:
    browser.open(page)
    for request in (
        f"fetch('{http.base_url}/v1/models')",
        f"fetch('{http.base_url}/v1/gpu/allocations', {{ method: 'POST', body: '{LEASE}',"
        " headers: { 'content-type': 'application/json' } })",
    ):
        assert browser.evaluate(f"{request}.then(() => 'read', () => 'blocked')") == "blocked"
    assert leases(http) == 0


def test_a_page_with_a_rebound_name_is_refused(browser: Chromium, http: httpx.Client) -> None:
    browser.open(f"http://evil.example:{http.base_url.port}/health/live")
    assert "allowed_hosts" in browser.evaluate("document.body.textContent")
    lease = (
        f"fetch('/v1/gpu/allocations', {{ method: 'POST', body: '{LEASE}',"
        " headers: { 'content-type': 'application/json' } }).then((answer) => answer.status)"
    )
    assert browser.evaluate("fetch('/v1/models').then((answer) => answer.status)") == 403
    assert browser.evaluate(lease) == 403
    assert leases(http) == 0


def test_a_page_of_an_allowed_origin_embeds_and_reads_the_headers(
    browser: Chromium, page: str, gateway: Gateway, embedding: EmbeddingService
) -> None:
    with gateway(embedding={"address": embedding.address}, cors={"allow_origins": [page]}) as http:
        browser.open(page)
        read = browser.evaluate(
            f"fetch('{http.base_url}/v1/embeddings', {{ method: 'POST', body: '{{\"input\": \"one\"}}', headers:"
            " { 'content-type': 'application/json', authorization: 'Bearer any', 'x-request-id': 'from-a-page' } })"
            ".then(async (answer) => [answer.headers.get('x-request-id'), (await answer.json()).data.length])"
        )
    assert read == ["from-a-page", 1]
