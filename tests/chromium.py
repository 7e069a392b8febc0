"""Headless Chromium, driven over a pipe (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.conftest import require_program

_TIMEOUT_S = 60.0


class Chromium:
    """One browser with one page.

    Args:
        folder: Where its profile is kept.
        options: More options of the program.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        program = require_program("chromium", "Debian's chromium")
        (commands, self._commands), (self._answers, answers) = os.pipe(), os.pipe()
        # The protocol is spoken on descriptors 3 and 4, which only a shell gives to a program.
        script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
        profile = f"--user-data-dir={folder}"
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *fixed, *options, profile, "about:blank"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._sent = 0
        self.events: list[dict[str, Any]] = []
        """What the page reported, oldest first."""

    def __enter__(self) -> Self:
        page = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._commands)
        os.close(self._answers)

    _session: dict[str, str] = {}  # noqa: RUF012  # replaced by each instance

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens a page and waits until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url="about:blank")  # a change of the fragment alone would load nothing
        self.events.clear()
        self._call("Page.navigate", url=url)
        while not any(each["method"] == "Page.loadEventFired" for each in self.events):
            self._receive()

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; of a promise, its outcome."""
        result = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Waits until a JavaScript expression is true."""
        last = time.monotonic() + _TIMEOUT_S
        while not self.evaluate(script):
            assert time.monotonic() < last, f"never true: {script}"
            time.sleep(0.05)

    def screenshot(self, path: Path, *, whole_page: bool = False) -> None:
        """Writes what the page shows as PNG."""
        taken = self._call("Page.captureScreenshot", captureBeyondViewport=whole_page)
        path.write_bytes(b64decode(taken["data"]))

    def problems(self) -> list[str]:
        """Exceptions, and errors in the page's console, such as violations of its policy."""
        found = []
        for event in self.events:
            about = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(about["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
                found.append(about["entry"]["text"])
        return found

    def requested(self) -> list[str]:
        """The URLs that the page requested."""
        return [
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        ]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], _TIMEOUT_S)
            assert ready, "Chromium does not answer"
            piece = os.read(self._answers, 2**20)
            assert piece, "Chromium has ended"
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        if "method" in received:
            self.events.append(received)
        return received
