"""The `torchless` command without a stack."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

import torchless
from torchless.cli.bentos import BENTOS
from torchless.cli.free_ports import free_port
from torchless.cli.main import app

run = CliRunner().invoke


def test_help_lists_every_command() -> None:
    shown = run(app, ["--help"])

    assert shown.exit_code == 0
    assert all(f" {command} " in shown.output for command in ("up", "status", "embed", "version"))


def test_help_imports_no_heavy_package() -> None:
    check = "import sys, torchless.cli.main; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)

    loaded = {name.partition(".")[0].strip("' ") for name in done.stdout.strip("[]\n").split(",")}
    assert "typer" in loaded
    assert loaded & {"grpc", "google", "numpy", "httpx", "pydantic", "supervisor", "psutil", "bentoml"} == set()


def test_version_prints_the_versions_of_torchless_and_python() -> None:
    assert run(app, ["version"]).output.startswith(f"torchless {torchless.__version__}, Python 3.11")


@pytest.mark.parametrize("command", [["status"], ["embed", "a text"]])
def test_commands_without_a_gateway_suggest_torchless_up(command: list[str]) -> None:
    shown = run(app, [*command, "--gateway", f"http://127.0.0.1:{free_port()}"])

    assert shown.exit_code == 1
    assert "start the stack with `torchless up`" in shown.stderr


def test_embed_reports_an_unreachable_embedding_service() -> None:
    shown = run(app, ["embed", "a text", "--address", f"127.0.0.1:{free_port()}"])

    assert shown.exit_code == 1
    assert "embedding service" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_status_reports_a_server_that_is_not_a_gateway() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"hello": "world"}).encode())

        def log_message(self, *_: object) -> None:
            """Prints nothing into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.handle_request, daemon=True).start()
        shown = run(app, ["status", "--gateway", f"http://127.0.0.1:{server.server_port}"])

    assert shown.exit_code == 1
    assert "is not a torchless gateway" in shown.stderr


def test_embed_without_texts_is_refused() -> None:
    shown = run(app, ["embed"], input="")

    assert shown.exit_code == 1
    assert "there are no texts to embed" in shown.stderr


def test_up_without_the_bentos_environment_changes_nothing(tmp_path: Path) -> None:
    shown = run(app, ["up", "--state", str(tmp_path), "--bentos-python", str(tmp_path / "python")])

    assert shown.exit_code == 1
    assert "run `make demo` once, or choose another with --bentos-python" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_of_up_are_also_environment_variables(tmp_path: Path) -> None:
    shown = run(app, ["up", "--state", str(tmp_path)], env={"TORCHLESS_UP_BENTOS_PYTHON": str(tmp_path / "missing")})

    assert shown.exit_code == 1
    assert str(tmp_path / "missing") in shown.stderr


@pytest.mark.parametrize("option", ["--gateway-port", *(f"--{bento.name}-port" for bento in BENTOS)])
def test_a_port_out_of_range_is_refused(option: str) -> None:
    refused = run(app, ["up", option, "70000"])

    assert refused.exit_code == 2
    assert option in refused.stderr
