"""`docs/resilience.md` agrees with the code: settings, defaults, errors, metrics, examples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from pydantic import BaseModel, SecretStr
from starlette.applications import Starlette

from bentos.embedding.settings import EmbeddingSettings
from bentos.reranking.settings import RerankingSettings
from docs import metrics_tables
from gateway.apis.operation.schemas import Readiness
from gateway.app import compose
from gateway.http.draining import Draining
from gateway.http.headers import CACHE_HEADER, DEGRADED_HEADER, REVISION_HEADER, TIMEOUT_HEADER, TRUNCATED_HEADER
from gateway.reload.changes import changed, connection_settings, reloadable_part
from gateway.services import CAPABILITIES, Services
from gateway.settings import GatewaySettings
from torchless.clients.adaptive_limit import ConcurrencySettings
from torchless.clients.call import REQUEST_ID_KEY, CallContext
from torchless.clients.endpoints.breaker import Breaker
from torchless.clients.request_joining import JoiningSettings
from torchless.clients.retry import plan_retry
from torchless.clients.settings import BreakerSettings, ClientSettings, RetrySettings
from torchless.contracts.errors import ErrorKind, TorchlessError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "resilience.md").read_text()
CLIENTS = tuple(capability.name for capability in CAPABILITIES)
DOCUMENTED = ("embedding.", "reranking.", "gpu.", "cache.", "reload.", "health.", "http.")
"""Groups of the gateway's settings that the page must list completely."""
TEXT = re.sub(r"^```\w+\n.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
"""The page without its examples."""
NAMED = re.findall(r"`([^`\n]+)`", TEXT)
_UNITS = ("_s", "_mib", "_bytes", "_ms")


def settings_of(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of `model` and the groups in it."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value.get_secret_value() if isinstance(value, SecretStr) else value


GATEWAY = dict(settings_of(GatewaySettings()))
BENTOS = [dict(settings_of(EmbeddingSettings())), dict(settings_of(RerankingSettings()))]


def defaults_of(name: str) -> list[Any]:
    """The default of the gateway's setting `name`, or that of each service where `name` is short for all of them."""
    if name in GATEWAY:
        return [GATEWAY[name]]
    return [GATEWAY[f"{client}.{name}"] for client in CLIENTS if f"{client}.{name}" in GATEWAY]


def rows(head: str) -> list[list[str]]:
    """The cells of all tables whose head begins with `head`."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", TEXT, flags=re.MULTILINE):
        first, _, *others = table.splitlines()
        if first.startswith(head):
            found += [[cell.strip() for cell in line.strip("|").split("|")] for line in others]
    assert found, f"no table with the head {head}"
    return found


def bare(cell: str) -> str:
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell[1:-1]


def test_defaults_are_those_of_the_gateway() -> None:
    documented = {bare(name): json.loads(bare(default)) for name, default, _ in rows("| setting | default |")}
    actual = {name: defaults_of(name) for name in documented}
    assert {name: [documented[name]] * max(1, len(actual[name])) for name in documented} == actual


def test_bento_defaults_are_those_of_the_bentos() -> None:
    for name, *defaults, _ in rows("| setting of the bento | embedding | reranking |"):
        assert [json.loads(bare(default)) for default in defaults] == [bento[bare(name)] for bento in BENTOS], name


def test_every_named_setting_exists() -> None:
    dotted = {name for name in NAMED if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)}
    single = {name for name in NAMED if re.fullmatch(r"[a-z_]+", name) and name.endswith(_UNITS)}
    named = {name for name in dotted | single if not name.startswith(("torchless_", "torchless."))}
    assert {"breaker.failures", "limits.deadline_s", "connection.keepalive_s"} <= named
    assert [name for name in sorted(named) if not defaults_of(name) and name not in BENTOS[0]] == []


def test_every_setting_of_the_documented_groups_is_on_the_page() -> None:
    documented = {bare(name) for name, _, _ in rows("| setting | default |")}
    whole = {f"{client}.{name}" for client in CLIENTS for name in documented} | documented
    assert [name for name in GATEWAY if name.startswith(DOCUMENTED) and name not in whole] == []


def _retried(kind: ErrorKind) -> str:
    again = plan_retry(TorchlessError(kind, ""), 1, RetrySettings(), repeatable=True)
    if again is None:
        return "no"
    if not again.only_others:
        return "yes"
    assert plan_retry(TorchlessError(kind, ""), 2, RetrySettings(), repeatable=True) is None
    return "once, elsewhere"


def _counts(kind: ErrorKind) -> str:
    settings = BreakerSettings()
    breaker, error = Breaker(settings), TorchlessError(kind, "")
    long = breaker.verdict(error, settings.deadline_counts_from_s)
    short = breaker.verdict(error, settings.deadline_counts_from_s / 2)
    said: dict[tuple[bool | None, bool | None], str] = {
        (True, True): "yes",
        (True, None): "if long enough",
        (False, False): "no",
    }
    return said[long, short]


def _yes(*, truth: bool) -> str:
    return "yes" if truth else "no"


def test_error_table_agrees_with_the_behaviour() -> None:
    actual = [
        [
            kind.value,
            str(kind.policy.http_status),
            _retried(kind),
            _counts(kind),
            _yes(truth=kind.policy.resumes_stream),
            _yes(truth=kind.policy.degrades),
        ]
        for kind in ErrorKind
    ]
    assert rows("| kind | HTTP |") == actual


def test_every_error_kind_is_explained() -> None:
    assert [kind for kind, _, _ in rows("| kind | meaning |")] == [kind.value for kind in ErrorKind]


def test_calls_that_must_not_run_twice_are_retried_only_after_the_documented_errors() -> None:
    error = {kind: TorchlessError(kind, "") for kind in ErrorKind}
    again = {kind for kind in ErrorKind if plan_retry(error[kind], 1, RetrySettings(), repeatable=False)}
    assert again == {ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED, ErrorKind.LOADING}
    assert "only after OVERLOADED, RATE_LIMITED and LOADING" in " ".join(TEXT.split())


@pytest_asyncio.fixture
async def app() -> Any:
    unused_port = {"address": "127.0.0.1:1"}
    services = Services.open(GatewaySettings.model_validate(dict.fromkeys(CLIENTS, unused_port)), Draining())
    yield compose(services)
    await services.close()


def test_named_metrics_are_on_the_page_of_metrics() -> None:
    known = {row.name for found in metrics_tables.sections().values() for row in found}
    named = {name for name in NAMED if name.startswith("torchless_")}
    assert named
    assert named <= known


async def test_every_named_route_exists(app: Starlette) -> None:
    paths = set(app.state.openapi.document(requires_key=False)["paths"])
    documented = {path for name in NAMED for path in re.findall(r"^(?:GET )?(/[\w/]+)$", name)}
    assert "/health/ready" in documented
    assert documented <= paths


def test_headers_are_those_of_the_gateway() -> None:
    of_responses = {CACHE_HEADER, DEGRADED_HEADER, REVISION_HEADER, TRUNCATED_HEADER}
    assert set(re.findall(r"\bx-[a-z-]+", TEXT)) == {TIMEOUT_HEADER, REQUEST_ID_KEY, *of_responses}


def test_settings_that_need_new_endpoints_or_a_restart_are_documented() -> None:
    cells = {when: re.findall(r"`([^`]+)`", what) for what, when in rows("| change | takes effect")}
    new = cells["for new endpoints"]
    assert connection_settings(f"embedding.{name}" for name in new) == [f"embedding.{name}" for name in new]
    groups = ("clients", *CLIENTS)
    of_clients = {f"{group}.{name}" for group in groups for name in new}
    of_http = cells["for new connections; in reading bodies for the next request"]
    assert set(connection_settings(GATEWAY)) == of_clients.union(of_http)
    started = GatewaySettings()
    limits = started.limits.model_copy(update={"max_deadline_s": 600.0})
    wanted = started.model_copy(update={"workers": 2, "limits": limits})
    late = changed(reloadable_part(wanted, started), wanted)
    assert late == [
        *cells["at once up to its value at the start; above it after a restart"],
        cells["after a restart"][0],
    ]


def _examples(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found, f"no example in {language}"
    return found


def test_settings_example_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = _examples("yaml")
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(file))
    settings = GatewaySettings.load()
    assert settings.embedding.address == yaml.safe_load(text)["embedding"]["address"]
    assert settings.reranking.address == "reranking-a:50052,reranking-b:50052"


def test_readiness_example_is_valid() -> None:
    (text,) = _examples("json")
    answer = json.loads(text)
    assert Readiness.model_validate(answer).model_dump() == answer


def test_python_example_runs() -> None:
    (code,) = _examples("py")
    made: dict[str, Any] = {}
    exec(code, made)
    assert isinstance(made["settings"], ClientSettings)
    assert made["settings"].breaker.open_s == 20
    assert isinstance(made["context"], CallContext)


def test_limits_and_joining_are_off_by_default_in_the_client_library() -> None:
    assert "are off by default in the client library" in " ".join(TEXT.split())
    assert not ClientSettings(address="a:1").concurrency.enabled
    assert ConcurrencySettings().enabled
    assert JoiningSettings().enabled


def test_every_linked_decision_exists() -> None:
    records = set(re.findall(r"\(decisions/([\w-]+\.md)\)", PAGE))
    assert records
    assert records <= {path.name for path in (ROOT / "docs" / "decisions").iterdir()}


def test_every_named_make_target_exists() -> None:
    targets = set(re.findall(r"`make (\w+)`", PAGE))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"chaos", "soak"} <= targets <= known
