"""Changes of the log's settings in the settings file of a running service."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentos.serving.log_reload import LogReload
from bentos.serving.settings import ServingSettings
from torchless.telemetry.logs import set_level


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "service.yaml"
    path.write_text("log: {level: INFO}")
    monkeypatch.setenv("TORCHLESS_SERVING_CONFIG", str(path))
    loggers = [logging.getLogger(name) for name in ("", "torchless", "bentos", "gateway", "bentoml", "uvicorn")]
    before = [logger.level for logger in loggers]
    yield path
    set_level("WARNING")
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def checked_twice(log: LogReload) -> None:
    log.check()
    log.check()


def test_changed_level_and_sampling_are_applied(file: Path) -> None:
    log = LogReload(ServingSettings.load())
    file.write_text("log: {level: WARNING, sample: 0.5}")
    checked_twice(log)
    assert (log().level, log().sample) == ("WARNING", 0.5)
    assert logging.getLogger("torchless.call").getEffectiveLevel() == logging.WARNING


def test_a_file_is_read_once_it_has_stopped_changing(file: Path) -> None:
    log = LogReload(ServingSettings.load())
    for sample in (0.1, 0.2):
        file.write_text(f"log: {{sample: {sample}}}")
        log.check()
        assert log().sample == 1.0
    log.check()
    assert log().sample == 0.2


@pytest.mark.parametrize("content", ["log: {sample: 2}", "logg: {}", "log: ["])
def test_a_file_that_is_not_valid_changes_nothing(file: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    log = LogReload(ServingSettings.load())
    file.write_text(content)
    checked_twice(log)
    checked_twice(log)
    assert log().sample == 1.0
    (record,) = caplog.records
    assert "the previous ones stay in force" in record.getMessage()


def test_other_settings_wait_for_a_restart_and_say_so(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = LogReload(ServingSettings.load())
    file.write_text("{drain_grace_s: 1, log: {format: text}}")
    checked_twice(log)
    assert log().format == "auto"
    assert [record.getMessage() for record in caplog.records] == [
        "all other changed settings take effect after a restart"
    ]


def test_a_file_that_is_gone_and_back_is_applied(file: Path) -> None:
    log = LogReload(ServingSettings.load())
    file.unlink()
    checked_twice(log)
    assert log().level == "INFO"
    file.write_text("log: {level: ERROR}")
    checked_twice(log)
    assert log().level == "ERROR"
