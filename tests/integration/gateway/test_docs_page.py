"""The documentation page, in a browser."""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chromium import Chromium
from tests.integration.gateway.conftest import Gateway
from torchless.clients.testing import EmbeddingService

KEY = "a-key-of-mine"
OPEN_ROUTE = "document.querySelector('article > details[open]')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def show(browser: Chromium, http: httpx.Client, fragment: str = "", **how: Any) -> None:
    browser.open(f"{http.base_url}/docs{fragment}".replace("127.0.0.1", "localhost"), **how)
    browser.wait_for("document.querySelectorAll('article').length > 20")


def send(browser: Chromium) -> str:
    """Sends the request of the open route; returns the answer as the page shows it."""
    browser.evaluate(f"{OPEN_ROUTE}.querySelector('.send').click()")
    browser.wait_for(f"{OPEN_ROUTE}.querySelector('[aria-live] p')?.textContent.includes(' ms')")
    shown: str = browser.evaluate(f"{OPEN_ROUTE}.querySelector('[aria-live]').textContent")
    return shown


def test_its_policy_allows_only_its_own_style_and_script(http: httpx.Client) -> None:
    answer = http.get("/docs")
    policy = answer.headers["content-security-policy"]
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, flags=re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(sha256(source.encode()).digest()).decode()}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.findall(r"""(?:src|href)=["'](?!openapi\.json|data:,)""", answer.text)
    assert "://" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_it_needs_nothing_but_the_document(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#all")
    assert browser.problems() == []
    (page, document) = (url.partition("#")[0].rpartition("/")[2] for url in browser.requested())
    assert (page, document) == ("docs", "openapi.json")


def test_it_lists_every_route_once_with_an_entry_in_the_contents(browser: Chromium, http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    wanted = sorted(f"{method.upper()}{path}" for path, methods in paths.items() for method in methods)
    show(browser, http)
    for place in ("article summary", "#entries a"):
        shown = (
            f"[...document.querySelectorAll('{place}')]"
            ".map((each) => each.querySelector('.method').textContent + each.querySelector('.path').textContent)"
        )
        assert sorted(browser.evaluate(shown)) == wanted
    assert browser.evaluate(
        "[...document.querySelectorAll('#entries a')].every((each) => document.getElementById(each.hash.slice(1)))"
    )
    assert browser.evaluate("document.querySelector('article > details').open") is False


def test_a_route_shows_types_required_fields_and_answers(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#v1_embeddings_embeddings")
    rows = browser.evaluate(
        f"Object.fromEntries([...{OPEN_ROUTE}.querySelectorAll('table:not(.answer table) tr')]"
        ".map((row) => [row.querySelector('.name').textContent, row.textContent]))"
    )
    assert "required" in rows["input"]
    assert "string[]" in rows["input"]
    assert '"float" | "base64"' in rows["encoding_format"]
    assert "required" not in rows["encoding_format"]
    statuses = browser.evaluate(
        f"[...{OPEN_ROUTE}.querySelectorAll('.answer .status')].map((each) => each.textContent)"
    )
    assert statuses == [*http.get("/openapi.json").json()["paths"]["/v1/embeddings"]["post"]["responses"]]


def test_every_curl_command_works(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#all")
    commands = browser.evaluate("[...document.querySelectorAll('.copy pre')].map((each) => each.textContent)")
    assert len(commands) > 20
    for command in commands:
        assert _status_of(shlex.split(command), http) == 200, command


def _status_of(words: list[str], http: httpx.Client) -> int:
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
    headers = dict(words[index + 1].split(": ") for index, word in enumerate(words) if word == "-H")
    url = next(word for word in words if word.startswith("http:")).replace("{model_id}", "testing/hashes")
    if "{allocation_id}" in url:
        lease = http.post("/v1/gpu/allocations", json={"memory_mb": 1, "holder": "docs"}).json()
        url = url.replace("{allocation_id}", lease["id"])
    # Not every answer has an end.
    with http.stream(method, url, json=body, headers=headers) as answer:
        return answer.status_code


def test_a_request_can_be_sent_and_its_answer_read(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#v1_embeddings_embeddings")
    shown = send(browser)
    assert shown.startswith("200 OK")
    assert "in all]" in shown, "long vectors are shortened"
    assert "x-request-id: " in shown
    browser.evaluate(
        f"{{ const body = {OPEN_ROUTE}.querySelector('textarea'); body.value = '{{\"input\": 1}}';"
        " body.dispatchEvent(new Event('input', { bubbles: true })) }"
    )
    assert '{"input":1}' in browser.evaluate(f"{OPEN_ROUTE}.querySelector('.copy pre').textContent")
    assert send(browser).startswith("400 ")
    assert "input" in browser.evaluate(f"{OPEN_ROUTE}.querySelector('[aria-live] pre').textContent")


def test_a_path_parameter_is_filled_in(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#v1_models_model_id_model")
    browser.evaluate(
        f"{{ const input = {OPEN_ROUTE}.querySelector('form input'); input.value = 'testing/hashes';"
        " input.dispatchEvent(new Event('input', { bubbles: true })) }"
    )
    assert send(browser).startswith("200 OK")


def test_a_stream_is_shown_as_it_arrives_until_it_is_stopped(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http, "#v1_gpu_watch_watch")
    browser.evaluate(f"{OPEN_ROUTE}.querySelector('.send').click()")
    browser.wait_for(f"{OPEN_ROUTE}.querySelector('[aria-live] pre')?.textContent.startsWith('event: status')")
    browser.evaluate(f"{OPEN_ROUTE}.querySelector('.send + button').click()")
    browser.wait_for(f"!{OPEN_ROUTE}.querySelector('.send').disabled")


def test_an_api_key_is_asked_for_where_one_is_required(
    browser: Chromium, gateway: Gateway, embedding: EmbeddingService
) -> None:
    with gateway(embedding={"address": embedding.address}, auth={"api_keys": [KEY]}) as http:
        show(browser, http, "#v1_embeddings_embeddings")
        assert browser.evaluate("document.querySelector('#key').hidden") is False
        assert "Authorization: Bearer YOUR_API_KEY" in browser.evaluate(
            f"{OPEN_ROUTE}.querySelector('.copy pre').textContent"
        )
        shown = send(browser)
        assert shown.startswith("401 ")
        assert "an API key is required" in shown
        browser.evaluate(
            f"{{ const input = document.querySelector('#key input'); input.value = '{KEY}';"
            " input.dispatchEvent(new Event('input', { bubbles: true })) }"
        )
        assert f"Authorization: Bearer {KEY}" in browser.evaluate(
            f"{OPEN_ROUTE}.querySelector('.copy pre').textContent"
        )
        assert send(browser).startswith("200 OK")


def test_the_filter_leaves_the_routes_that_match(browser: Chromium, http: httpx.Client) -> None:
    show(browser, http)
    browser.evaluate(
        "{ const input = document.querySelector('#filter'); input.value = 'RERANK';"
        " input.dispatchEvent(new Event('input')) }"
    )
    left = browser.evaluate(
        "[...document.querySelectorAll('article:not([hidden]) .path')].map((each) => each.textContent)"
    )
    assert {"/rerank", "/v1/rerank", "/v2/rerank"} <= {*left}
    assert "/v1/embeddings" not in left


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 820, 390])
def test_it_fits_every_width(browser: Chromium, http: httpx.Client, tmp_path: Path, width: int, dark: bool) -> None:
    show(browser, http, "#all", width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
