"""Logging of a whole process: our lines, those of libraries, warnings and crashes, in a real process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

PROGRAM = """
import logging, sys, threading, warnings
import bentoml._internal.log as theirs
theirs.configure_server_logging()
from torchless.settings import LogSettings
from torchless.telemetry.logs import configure_logging, set_level
configure_logging(LogSettings(level=sys.argv[1], format=sys.argv[2]), "gateway")
logging.getLogger("gateway.part").debug("ours at debug")
logging.getLogger("gateway.part").info("ours")
for name in ("bentoml.serve", "circus", "uvicorn.error", "some.library"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).warning("from %s", name)
logging.getLogger("uvicorn.access").error("never")
warnings.warn("old", DeprecationWarning, stacklevel=1)
def fail(secret): raise ValueError(secret)
thread = threading.Thread(target=fail, args=("a secret text",), name="device")
thread.start()
thread.join()
set_level("ERROR")
logging.getLogger("gateway.part").warning("no longer")
logging.getLogger("some.library").warning("no longer")
raise OSError("the port is taken")
"""


def run(level: str = "INFO", form: str = "auto") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM, level, form], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_of_a_process_is_json_unless_on_a_terminal() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in run()]
    assert [line["message"] for line in lines if line["logger"] not in {"py.warnings", "torchless.crash"}] == [
        "ours",
        "from bentoml.serve",
        "from circus",
        "from uvicorn.error",
        "from some.library",
    ]
    assert {line["service"] for line in lines} == {"gateway"}
    (warned,) = (line for line in lines if line["logger"] == "py.warnings")
    assert "DeprecationWarning: old" in warned["message"]
    crashes = [line for line in lines if line["logger"] == "torchless.crash"]
    assert [(line["message"], line["exception"]) for line in crashes] == [
        ("the thread device failed", "ValueError"),
        ("the process failed: OSError: the port is taken", "OSError"),
    ]
    assert all(line["stack"] and "secret" not in str(line) for line in crashes)


def test_libraries_are_not_logged_below_warning_at_any_level() -> None:
    lines = run("DEBUG")
    assert any("ours at debug" in line for line in lines)
    assert not any("debug of" in line for line in lines)


def test_text_is_written_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as terminal:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, "INFO", "auto"], stderr=theirs)
        os.close(theirs)
        first = terminal.readline().decode().rstrip()
        with suppress(OSError):  # the end of a terminal
            terminal.read()
        process.wait(20)
    time, rest = first.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "INFO    gateway ours"


def test_setting_decides_on_the_form() -> None:
    assert run(form="text")[0].endswith("INFO    gateway ours")
