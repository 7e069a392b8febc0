"""The table of the services that `torchless up` starts."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from torchless.cli.bentos import BENTOS, METRICS_PORT, Bento, pythons_in
from torchless.cli.services import StackSettings, stack_services
from torchless.clients.base import CapabilityClient
from torchless.settings import ProgramSettings

ROOT = Path(__file__).parents[3]


def settings_of(bento: Bento) -> type[ProgramSettings]:
    """The settings of the service in `bentos/<name>/settings.py`."""
    found = vars(importlib.import_module(f"bentos.{bento.name}.settings")).values()
    return next(each for each in found if getattr(each, "env_prefix", None) == bento.prefix)


@pytest.mark.parametrize("bento", BENTOS, ids=lambda bento: bento.name)
def test_a_row_agrees_with_client_settings_and_folder(bento: Bento) -> None:
    client = pkgutil.resolve_name(bento.client)
    settings = settings_of(bento)

    assert issubclass(client, CapabilityClient)
    assert client.capability == bento.name
    assert (ROOT / "bentos" / bento.name / "service.py").is_file()
    assert settings.model_fields["metrics_port"].default == METRICS_PORT + bento.metrics_offset
    assert {name.lower() for name in bento.state_files} <= set(settings.model_fields)
    assert getattr(GatewaySettings(), bento.name).address == f"127.0.0.1:{bento.port}"


def test_stack_services_start_in_the_order_of_the_table_with_different_ports(tmp_path: Path) -> None:
    pythons = pythons_in(ROOT / ".venv")
    settings = StackSettings.on_free_ports(ROOT, tmp_path, pythons, metrics=True)
    services = stack_services(settings)

    assert [service.name for service in services] == [*(bento.name for bento in BENTOS), "gateway"]
    numbers = [port.number for service in services for port in service.ports]
    assert len(set(numbers)) == len(numbers) == 2 * len(BENTOS) + 1
    for bento, service in zip(BENTOS, services, strict=False):
        assert service.urls["gRPC"] == settings.address(bento.name)
        assert service.environment[f"{bento.prefix}METRICS_PORT"] in service.urls["metrics"]
        assert services[-1].environment[f"TORCHLESS_GATEWAY_{bento.name.upper()}__ADDRESS"] == service.urls["gRPC"]
