"""Who learns the addresses of the services from the open routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.app import close, compose
from gateway.http.draining import Draining
from gateway.services import Services
from gateway.settings import GatewaySettings

ADDRESS = "127.0.0.1:1"
KEY = "a-key-of-mine"


@pytest.fixture(params=[[], [KEY]], ids=["without keys", "with keys"])
async def application(request: pytest.FixtureRequest) -> AsyncIterator[Starlette]:
    settings: dict[str, Any] = {name: {"address": ADDRESS} for name in ("embedding", "reranking", "gpu")}
    settings["auth"] = {"api_keys": request.param}
    app = compose(Services.open(GatewaySettings.model_validate(settings), Draining()))
    yield app
    await close(app)


@pytest.mark.parametrize("path", ["/health/ready", "/metrics"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.7", "[2001:db8::7]"])
async def test_addresses_are_shown_with_a_key_or_without_keys_on_the_same_machine(
    application: Starlette, path: str, host: str
) -> None:
    requires_key = bool(application.state.services.settings.auth.api_keys)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}:3000") as http:
        without = (await http.get(path)).text
        given = (await http.get(path, headers={"x-api-key": KEY})).text
    is_local = host in {"127.0.0.1", "[::1]"}
    assert (ADDRESS in without) is (is_local and not requires_key)
    assert (ADDRESS in given) is (is_local or requires_key)
