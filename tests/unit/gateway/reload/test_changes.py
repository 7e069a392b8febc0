"""Changed settings: their names, and which of them need a restart or a new connection."""

from __future__ import annotations

import pytest

from gateway.http.bodies import BodyLimit
from gateway.http.bulkheads import Admission
from gateway.http.exceptions import UnreadBodyError
from gateway.reload.changes import changed, connection_settings, reloadable_part
from gateway.settings import GatewaySettings
from tests.unit.gateway.bodies import MIB, body_of
from torchless.contracts.errors import TorchlessError


def test_changed_settings_are_listed_by_name_without_values() -> None:
    before = GatewaySettings(auth={"api_keys": ["secret-one"]}, models={"aliases": {"small": "a/b"}})
    after = GatewaySettings(
        auth={"api_keys": ["secret-two"]},
        models={"aliases": {"small": "c/d"}},
        limits={"items": 7, "deadline_s": 5},
        embedding={"address": "127.0.0.1:7,127.0.0.1:8", "retry": {"attempts": 2}},
        workers=2,
    )
    assert changed(before, after) == [
        "embedding.address",
        "embedding.retry.attempts",
        "auth.api_keys",
        "limits.items",
        "limits.deadline_s",
        "models.aliases",
        "workers",
    ]
    assert changed(after, after.model_copy(deep=True)) == []


def test_client_defaults_are_listed_as_the_settings_of_the_services_that_they_change() -> None:
    before, after = GatewaySettings(), GatewaySettings(clients={"slow_start_s": 3}, gpu={"slow_start_s": 10})
    assert changed(before, after) == ["embedding.slow_start_s", "reranking.slow_start_s"]


def test_the_number_of_workers_stays() -> None:
    started, wanted = GatewaySettings(), GatewaySettings(workers=4, limits={"items": 7})
    settings = reloadable_part(wanted, started)
    assert (settings.workers, settings.limits.items) == (1, 7)
    assert changed(settings, wanted) == ["workers"]


@pytest.mark.parametrize(("wanted", "in_force"), [(5, 5), (60, 60), (60.5, 60), (600, 60)])
def test_the_longest_deadline_grows_no_further_than_at_the_start(wanted: float, in_force: float) -> None:
    started, given = GatewaySettings(), GatewaySettings(limits={"max_deadline_s": wanted})
    settings = reloadable_part(given, started)
    assert settings.limits.max_deadline_s == in_force
    assert changed(settings, given) == ([] if wanted == in_force else ["limits.max_deadline_s"])


def test_connection_settings_are_those_of_new_connections() -> None:
    before, after = GatewaySettings(), GatewaySettings(gpu={"connection": {"keepalive_s": 50}, "deadline_s": 5})
    assert connection_settings(changed(before, after)) == ["gpu.connection.keepalive_s"]


def test_requests_in_flight_count_under_a_new_limit() -> None:
    admission = Admission(2)
    with admission.slot("embedding"), admission.slot("gpu"):
        admission.reconfigure(1)
        with pytest.raises(TorchlessError), admission.slot("reranking"):
            pass
        admission.reconfigure(3)
        with admission.slot("reranking"):
            pass
    admission.reconfigure(1)
    with admission.slot("embedding"), pytest.raises(TorchlessError), admission.slot("gpu"):
        pass


async def test_bodies_in_memory_count_under_new_limits() -> None:
    limit = BodyLimit(1, 2, 60)
    with body_of(limit, "embedding", MIB) as body:
        assert len(await body.read_all()) == MIB
        limit.reconfigure(1, 1, 60)
        with pytest.raises(UnreadBodyError), body_of(limit, "reranking", 1) as another:
            await another.read_all()
        limit.reconfigure(1, 1.5, 60)
        with body_of(limit, "reranking", MIB // 2) as another:
            await another.read_all()
    with body_of(limit, "embedding", MIB) as body, body_of(limit, "reranking", MIB // 2 + 1) as another:
        await body.read_all()
        with pytest.raises(UnreadBodyError):
            await another.read_all()
