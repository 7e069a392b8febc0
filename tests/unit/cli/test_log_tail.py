"""The end of a log, and the lines that are added."""

from __future__ import annotations

from pathlib import Path

from torchless.cli.log_tail import LogFollower, log_tail


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
