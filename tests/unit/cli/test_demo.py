"""The changes that the demo makes to the stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.__main__ import without_keys
from gateway.settings import GatewaySettings
from torchless.cli.services import Service


async def never() -> bool:
    return False


@pytest.mark.parametrize("keys", ['["a-key-of-the-user"]', "not even JSON"])
def test_the_gateway_of_the_demo_requires_no_key_whatever_the_user_has_set(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("auth: {api_keys: [a-key-in-a-file]}\nlimits: {items: 7}\n")
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(file))
    monkeypatch.setenv("TORCHLESS_GATEWAY_AUTH__API_KEYS", keys)
    services = [
        Service(name, ("program",), never, environment={f"TORCHLESS_{name.upper()}_WORKERS": "2"})
        for name in ("gpu", "gateway")
    ]

    gpu, gateway = without_keys(services)
    for name, value in gateway.environment.items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings.load()

    assert gpu == services[0]
    assert (settings.auth.api_keys, settings.workers, settings.limits.items) == ((), 2, 7)
