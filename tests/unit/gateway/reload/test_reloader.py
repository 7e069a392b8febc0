"""Hot reload: changes of the settings file that are applied or refused, and what is logged."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from watchfiles._rust_notify import WatchfilesRustInternalError

from gateway.http.draining import Draining
from gateway.http.metrics import GatewayMetrics
from gateway.reload import reloader
from gateway.reload.reloader import Reloader, fingerprint
from gateway.services import EMBEDDING, GPU, RERANKING, Services
from gateway.settings import GatewaySettings
from gateway.worker import WorkerApp
from tests.waiting import until
from torchless.clients.gpu import GPUClient
from torchless.clients.settings import ClientSettings

SECRET = "a-key-that-is-secret"
START = "limits: {items: 3}\nembedding: {address: '127.0.0.1:1'}\nreranking: {address: ''}\n"


class Watched:
    """A reloader over a file, and the services that it made."""

    def __init__(self, path: Path, check_s: float = 60) -> None:
        self.path = path
        path.write_text(START)
        self.first = Services.open(GatewaySettings.load(), Draining())
        self.swapped: list[Services] = []
        self.metrics = GatewayMetrics()
        self.reloader = Reloader(path, self.first, self.swapped.append, self.metrics, settle_s=0.02, check_s=check_s)

    @property
    def services(self) -> Services:
        """The services of requests that begin now."""
        return self.swapped[-1] if self.swapped else self.first

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The reloader follows the file inside the context."""
        task = asyncio.create_task(self.reloader.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        await self.reloader.close()
        await self.services.close()

    async def write(self, content: str) -> None:
        self.path.write_text(content)
        await self.reloader.check()

    def counted(self) -> dict[str, float]:
        lines = self.metrics.exposition().decode().splitlines()
        found = (line.rsplit(" ", 1) for line in lines if line.startswith("torchless_gateway_settings_reloads_total"))
        return {name.split('"')[1]: float(value) for name, value in found}


@pytest_asyncio.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(tmp_path / "gateway.yaml"))
    one = Watched(tmp_path / "gateway.yaml")
    yield one
    await one.close()


def of_reload(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the reloader logged; the clients log that nothing listens at their endpoints."""
    return [record for record in caplog.records if record.name == "gateway.reload.reloader"]


async def test_a_change_makes_new_services_and_leaves_the_old_ones_unchanged(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.write(
        f"limits: {{items: 7}}\nauth: {{api_keys: [{SECRET}]}}\nembedding: {{address: '127.0.0.1:1,127.0.0.1:2'}}\n"
        "reranking: {address: ''}"
    )
    before, after = watched.first, watched.services
    assert (before.settings.limits.items, after.settings.limits.items) == (3, 7)
    assert (before.authenticator, before.embedder) != (after.authenticator, after.embedder)
    for capability in (EMBEDDING, GPU):
        assert before.client(capability) is after.client(capability)
    for name in ("admission", "body_limit", "draining", "reload_state"):
        assert getattr(before, name) is getattr(after, name)
    assert {state.address for state in after.client(EMBEDDING).states()} == {"127.0.0.1:1", "127.0.0.1:2"}
    assert "in force: embedding.address, auth.api_keys, limits.items" in caplog.text
    assert SECRET not in caplog.text
    assert not any("127.0.0.1" in record.getMessage() for record in of_reload(caplog))
    assert watched.counted() == {"applied": 1}


async def test_unchanged_settings_swap_nothing(watched: Watched) -> None:
    await watched.write(START)
    await watched.write(START + "# a remark\n")
    await watched.reloader.check()
    assert watched.swapped == []
    assert watched.counted() == {"unchanged": 2}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f"limits: {{items: {SECRET}}}", "limits.items: Input should be a valid integer"),
        (f"limits: {{items: 0}}\nauth: {{api_keys: [{SECRET}, short]}}", "auth.api_keys: Value error, a key must have"),
        (f"auth: {{api_keys: [{SECRET}", "the file is not YAML: line 1"),
        ("limits: {itmes: 3}", "limits: Extra inputs"),
        ("", "the file is empty"),
    ],
)
async def test_invalid_settings_are_refused_until_they_are_fixed(
    watched: Watched, caplog: pytest.LogCaptureFixture, content: str, named: str
) -> None:
    await watched.write(content)
    await watched.reloader.check()
    assert watched.swapped == []
    assert named in (watched.services.reload_state.refused or "")
    assert [record.levelno for record in of_reload(caplog)] == [logging.ERROR]
    assert named.partition(":")[0].removeprefix("the file ") in caplog.text
    assert SECRET not in caplog.text + str(watched.services.reload_state.refused)
    assert b"torchless_gateway_settings_refused 1.0" in watched.metrics.exposition()
    await watched.write(START.replace("3", "8"))
    assert watched.services.settings.limits.items == 8
    assert watched.services.reload_state.refused is None
    assert watched.counted() == {"refused": 1, "applied": 1}
    assert b"torchless_gateway_settings_refused 0.0" in watched.metrics.exposition()


async def test_equal_faults_are_reported_once(watched: Watched) -> None:
    await watched.write("".join(f"unknown_{number}: 1\n" for number in range(100)))
    assert watched.services.reload_state.refused == "settings: Extra inputs are not permitted"


async def test_going_back_to_the_settings_in_force_clears_the_refusal(watched: Watched) -> None:
    await watched.write("limits: [")
    await watched.write(START)
    assert watched.services.reload_state.refused is None
    assert watched.counted() == {"refused": 1, "unchanged": 1}


async def test_a_removed_file_is_refused_and_its_return_clears_the_refusal(watched: Watched) -> None:
    watched.path.unlink()
    await watched.reloader.check()
    assert watched.services.reload_state.refused == "the file does not exist"
    await watched.write(START)
    assert watched.services.reload_state.refused is None


async def test_a_half_written_file_is_waited_for(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = START.replace("3", "9")
    # The first part is no YAML; the second could be used.
    parts = [whole[:9], whole[:18], whole]

    def seen_while_it_is_written(path: Path) -> str:
        if parts:
            path.write_text(parts.pop(0))
        return fingerprint(path)

    monkeypatch.setattr(reloader, "fingerprint", seen_while_it_is_written)
    await watched.reloader.check()
    assert [services.settings.limits.items for services in watched.swapped] == [9]
    assert watched.services.settings.embedding.address == "127.0.0.1:1"
    assert watched.counted() == {"applied": 1}


async def test_environment_variables_win_over_a_changed_file(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLESS_GATEWAY_LIMITS__ITEMS", "3")
    await watched.write(START.replace("3", "5"))
    assert watched.swapped == []
    await watched.write(START.replace("3", "5") + "health: {timeout_s: 1}")
    assert (watched.services.settings.limits.items, watched.services.settings.health.timeout_s) == (3, 1)


async def test_settings_that_need_a_restart_are_named_and_the_rest_is_applied(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.write(f"workers: 3\n{START.replace('3', '5, max_deadline_s: 999, deadline_s: 4')}")
    assert "take effect after a restart: limits.max_deadline_s, workers" in caplog.text
    settings = watched.services.settings
    assert (settings.workers, settings.limits.max_deadline_s) == (1, 60)
    assert (settings.limits.items, settings.limits.deadline_s) == (5, 4)
    caplog.clear()
    await watched.write(START.replace("3", "5, max_deadline_s: 20"))
    assert watched.services.settings.limits.max_deadline_s == 20
    assert "restart" not in caplog.text


async def test_the_client_of_a_removed_service_outlives_requests_that_hold_it(watched: Watched) -> None:
    await watched.write(START.replace("''", "'127.0.0.1:9'"))
    with_reranking = watched.services
    assert watched.first.find(RERANKING) is None
    assert with_reranking.find(RERANKING) is not None
    await watched.write(START)
    assert watched.services.find(RERANKING) is None
    # Requests that began before hold the client that was, until the longest deadline of any has passed.
    client = with_reranking.find(RERANKING)
    assert [state.address for state in client.states()] == ["127.0.0.1:9"]
    await watched.reloader.close()
    assert client.states() == []


async def test_a_service_that_returns_in_time_gets_its_client_back(watched: Watched) -> None:
    await watched.write(START.replace("''", "'127.0.0.1:9'"))
    client = watched.services.find(RERANKING)
    assert client is not None
    await watched.write(START)
    await watched.write(START.replace("3", "4"))
    await watched.write(START.replace("''", "'127.0.0.1:8'"))
    assert watched.services.find(RERANKING) is client
    await watched.reloader.close()
    assert [state.address for state in client.states()] == ["127.0.0.1:8"]


async def test_the_client_of_a_removed_service_is_closed_in_the_end(watched: Watched) -> None:
    soon = START.replace("3", "3, max_deadline_s: 0.1").replace("''", "'127.0.0.1:9'")
    watched.path.write_text(soon)
    services, swapped = Services.open(GatewaySettings.load(), Draining()), list[Services]()
    client = services.find(RERANKING)
    assert client is not None

    one = Reloader(watched.path, services, swapped.append, watched.metrics, settle_s=0.02)
    watched.path.write_text(START)
    await one.check()
    await until(lambda: client.states() == [])
    await one.close()
    await swapped[0].close()


async def test_a_client_that_fails_to_reconfigure_restores_all_clients(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(self: GPUClient, settings: ClientSettings) -> None:
        if settings.deadline_s == 9:
            raise RuntimeError(SECRET)

    monkeypatch.setattr(GPUClient, "reconfigure", refuse)
    watched.path.write_text(START.replace(":1'", ":2'") + "gpu: {deadline_s: 9}")

    async with watched.running():
        await until(lambda: watched.services.reload_state.refused is not None)
        assert watched.swapped == []
        assert [state.address for state in watched.first.client(EMBEDDING).states()] == ["127.0.0.1:1"]
        assert "RuntimeError" in caplog.text
        assert SECRET not in caplog.text
        # The next change is handled as any other.
        watched.path.write_text(START.replace("3", "4"))
        await until(lambda: watched.services.settings.limits.items == 4)
        assert watched.services.reload_state.refused is None


def replace(path: Path, content: str) -> None:
    """Replaces the file by one rename, as editors and deployments do."""
    path.with_suffix(".new").write_text(content)
    path.with_suffix(".new").replace(path)


def in_place(path: Path, content: str) -> None:
    path.write_text(content)


def through_a_link(path: Path, content: str) -> None:
    """Swaps the link that leads to the file, as Kubernetes does: gateway.yaml -> ..data/gateway.yaml, ..data -> v1."""
    version = path.parent / f"v{len(list(path.parent.iterdir()))}"
    version.mkdir()
    (version / path.name).write_text(content)
    (path.parent / "..new").symlink_to(version.name)
    (path.parent / "..new").replace(path.parent / "..data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(f"..data/{path.name}")


@pytest.mark.parametrize("write", [in_place, replace, through_a_link])
async def test_changes_are_noticed_at_once_however_the_file_is_written(
    watched: Watched, write: Callable[[Path, str], None]
) -> None:
    async with watched.running():
        await until(lambda: watched.counted() == {"unchanged": 1})
        for items in (5, 6, 7):
            write(watched.path, START.replace("3", str(items)))
            await until(lambda items=items: watched.services.settings.limits.items == items)


async def test_a_missing_file_is_noticed_and_so_is_its_return(watched: Watched) -> None:
    async with watched.running():
        await until(lambda: watched.counted() == {"unchanged": 1})
        watched.path.unlink()
        await until(lambda: watched.services.reload_state.refused == "the file does not exist")
        watched.path.write_text(START.replace("3", "5"))
        await until(lambda: watched.services.settings.limits.items == 5)


async def test_a_missing_folder_and_its_return_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(folder / "gateway.yaml"))
    watched = Watched(folder / "gateway.yaml", check_s=0.1)
    async with watched.running():
        await until(lambda: watched.counted() == {"unchanged": 1})
        folder.rename(tmp_path / "gone")
        await until(lambda: watched.services.reload_state.refused == "the file does not exist")
        for items in (5, 6):
            folder.mkdir(exist_ok=True)
            (folder / "gateway.yaml").write_text(START.replace("3", str(items)))
            await until(lambda items=items: watched.services.settings.limits.items == items)
    await watched.close()


def by_rename(folder: Path, content: str) -> None:
    """Puts another folder in the place of `folder`, as deployments do."""
    new = folder.with_suffix(".new")
    new.mkdir()
    (new / "gateway.yaml").write_text(content)
    folder.rename(folder.with_suffix(f".{time.monotonic_ns()}"))
    new.rename(folder)


def by_removal(folder: Path, content: str) -> None:
    """Removes `folder` and makes it again, mostly with the same inode number."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "gateway.yaml").write_text(content)


@pytest.mark.parametrize("put", [by_rename, by_removal])
async def test_the_file_in_a_folder_that_replaced_another_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, str], None]
) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(folder / "gateway.yaml"))
    watched = Watched(folder / "gateway.yaml")
    async with watched.running():
        await until(lambda: watched.counted() == {"unchanged": 1})
        for items in (4, 6):
            put(folder, START.replace("3", str(items)))
            await until(lambda items=items: watched.services.settings.limits.items == items)
            watched.path.write_text(START.replace("3", str(items + 1)))
            await until(lambda items=items: watched.services.settings.limits.items == items + 1)
    await watched.close()


@pytest.mark.parametrize(
    "error", [OSError("OS file watch limit reached"), WatchfilesRustInternalError("error in underlying watcher")]
)
async def test_a_file_system_that_reports_no_changes_is_checked_now_and_then(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def refuse(*folders: Path, **options: object) -> AsyncIterator[None]:
        raise error
        yield

    monkeypatch.setattr(reloader, "awatch", refuse)
    slow = Watched(watched.path, check_s=0.05)
    async with slow.running():
        await until(lambda: slow.counted() == {"unchanged": 1})
        watched.path.write_text(START.replace("3", "5"))
        await until(lambda: slow.services.settings.limits.items == 5)
    assert caplog.text.count(f"cannot be watched ({type(error).__name__}); checking it every 0.05 s") == 1
    await slow.close()


async def test_a_request_for_a_check_does_not_keep_the_reloader_from_ending(watched: Watched) -> None:
    running = asyncio.create_task(watched.reloader.run())
    await until(lambda: watched.counted() == {"unchanged": 1})
    watched.reloader.request()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=10)
    assert done


async def test_sighup_reads_the_file_again_where_it_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.yaml"
    monkeypatch.setenv("TORCHLESS_GATEWAY_CONFIG", str(path))
    never = "reload: {watch: false}\n"
    path.write_text(never)
    application = WorkerApp(GatewaySettings.load())
    await application.open()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as http:

        async def document() -> dict[str, object]:
            answer: dict[str, object] = (await http.get("/openapi.json")).json()
            return answer

        async def counted(outcome: str) -> bool:
            return f'reloads_total{{outcome="{outcome}"}} 1.0' in (await http.get("/metrics")).text

        await until(partial(counted, "unchanged"))
        assert (await document())["security"] == []
        path.write_text(f"{never}auth: {{api_keys: [{SECRET}]}}")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(partial(counted, "applied"))
        assert (await document())["security"] != []
        assert (await http.get("/v1/models")).status_code == 401
    await application.close()
