"""What the lines of a log say."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from torchless.cli.log_lines import readable, text_of
from torchless.cli.log_tail import last_error
from torchless.cli.logs import print_logs


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["2026-11-27T21:00:00+0000 ERROR bentos.serving.lifecycle: the folder is empty", "bye"],
            "the folder is empty",
        ),
        (["2026-11-27T21:00:00.123Z ERROR   embedding no GPU", "2026-11-27T21:00:00Z INFO    x bye"], "no GPU"),
        (["2026-11-27T21:00:00+0000 [ERROR] [cli] no such service", "2026 [INFO] [cli] bye"], "no such service"),
        (['{"level": "error", "message": "the hub does not answer"}', '{"level": "info"}'], "the hub does not answer"),
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
    assert text_of('{"level": "error", "message": "a worker ended: x"}') == "a worker ended: x"
    assert text_of("a worker ended: x") == "a worker ended: x"
    assert text_of("{not JSON") == "{not JSON"


def test_a_json_line_is_readable_as_text_with_its_fields_and_stack() -> None:
    line = (
        '{"time":"2026-11-27T21:00:00.123Z","level":"error","service":"gateway","logger":"gateway.x",'
        '"message":"it failed","request_id":"r1","items":3,"stack":"KeyError\\n  File x\\n"}'
    )

    assert readable(line).splitlines() == [
        "2026-11-27T21:00:00.123Z ERROR   it failed request_id=r1 items=3",
        "KeyError",
        "  File x",
    ]
    assert readable("not JSON") == "not JSON"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_json_lines_are_printed_as_text_on_a_terminal_and_unchanged_elsewhere(
    is_terminal: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text('{"time":"T","level":"info","message":"[it] runs","stack":"one\\ntwo"}\n')
    printed = io.StringIO()
    print_logs({"one": log}, Console(file=printed, force_terminal=is_terminal, width=10), lines=5, follow=False)

    expected = "T INFO    [it] runs\none\ntwo\n" if is_terminal else log.read_text()
    assert printed.getvalue() == expected
