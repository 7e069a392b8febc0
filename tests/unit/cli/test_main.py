"""What the command says before it needs a stack."""

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
from torchless.cli.free_ports import free_port
from torchless.cli.main import app

run = CliRunner().invoke


def test_help_names_every_command() -> None:
    shown = run(app, ["--help"])

    assert shown.exit_code == 0
    assert all(f" {command} " in shown.output for command in ("up", "status", "embed", "version"))


def test_help_loads_nothing_heavy() -> None:
    check = "import sys, torchless.cli.main; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)

    loaded = {name.partition(".")[0].strip("' ") for name in done.stdout.strip("[]\n").split(",")}
    assert "typer" in loaded
    assert loaded & {"grpc", "google", "numpy", "httpx", "pydantic", "supervisor", "psutil", "bentoml"} == set()


def test_version() -> None:
    assert run(app, ["version"]).output.startswith(f"torchless {torchless.__version__}, Python 3.11")


@pytest.mark.parametrize("command", [["status"], ["embed", "a text"]])
def test_a_gateway_that_is_not_there(command: list[str]) -> None:
    said = run(app, [*command, "--gateway", f"http://127.0.0.1:{free_port()}"])

    assert said.exit_code == 1
    assert "start the stack with `torchless up`" in said.stderr


def test_an_embedding_service_that_is_not_there() -> None:
    said = run(app, ["embed", "a text", "--address", f"127.0.0.1:{free_port()}"])

    assert said.exit_code == 1
    assert "embedding service" in said.stderr
    assert "Traceback" not in said.stderr


def test_something_else_than_a_gateway() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"hello": "world"}).encode())

        def log_message(self, *_: object) -> None:
            """Prints nothing into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.handle_request, daemon=True).start()
        said = run(app, ["status", "--gateway", f"http://127.0.0.1:{server.server_port}"])

    assert said.exit_code == 1
    assert "is no torchless gateway" in said.stderr


def test_nothing_to_embed() -> None:
    said = run(app, ["embed"], input="")

    assert said.exit_code == 1
    assert "there is nothing to embed" in said.stderr


def test_up_without_the_bentos_environment(tmp_path: Path) -> None:
    said = run(app, ["up", "--state", str(tmp_path), "--bentos-python", str(tmp_path / "python")])

    assert said.exit_code == 1
    assert "run `make demo` once, or name another with --bentos-python" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_are_environment_variables_too(tmp_path: Path) -> None:
    said = run(app, ["up", "--state", str(tmp_path)], env={"TORCHLESS_UP_BENTOS_PYTHON": str(tmp_path / "missing")})

    assert said.exit_code == 1
    assert str(tmp_path / "missing") in said.stderr


def test_a_port_out_of_range() -> None:
    assert run(app, ["up", "--gateway-port", "70000"]).exit_code == 2
