"""The end of a log, its last error, and the lines that are added."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchless.cli.log_tail import LogFollower, last_error, log_tail, text_of


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["2026-11-27T21:00:00+0000 ERROR bentos.serving.lifecycle: the folder is empty", "bye"],
            "the folder is empty",
        ),
        (["2026-11-27T21:00:00+0000 [ERROR] [cli] no such service", "2026 [INFO] [cli] bye"], "no such service"),
        (['{"level": "error", "event": "the hub does not answer"}', '{"level": "info"}'], "the hub does not answer"),
        (['{"message": "no GPU", "level": "ERROR"}', "{broken"], "no GPU"),
        (["Traceback (most recent call last):", "  raise x", "ModuleNotFoundError: No module named 'x'"], None),
        (["starting", "the model folder is empty", ""], "the model folder is empty"),
        ([], ""),
    ],
)
def test_last_error_is_the_reason_that_the_log_gives(lines: list[str], reason: str | None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))

    assert last_error(log) == (lines[-1] if reason is None else reason)


def test_text_of_a_json_line_is_its_message() -> None:
    assert text_of('{"level": "error", "event": "a worker ended: x"}') == "a worker ended: x"
    assert text_of("a worker ended: x") == "a worker ended: x"
    assert text_of("{not JSON") == "{not JSON"


def test_log_tail_reads_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == ""
    log.write_text("\n".join(map(str, range(100))))
    assert log_tail(log, 2) == "98\n99"


def test_a_follower_returns_complete_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    follower = LogFollower(log)
    assert follower.lines() == []
    log.write_text("one\ntw")
    assert follower.lines() == ["one"]
    with log.open("a") as file:
        file.write("o\nthree\n")
    assert follower.lines() == ["two", "three"]
    assert follower.lines() == []


def test_a_follower_goes_on_in_the_new_file_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    follower = LogFollower(log, from_start=False)
    assert follower.lines() == []
    log.rename(tmp_path / "log.1")
    log.write_text("new\n")
    assert follower.lines() == ["new"]
