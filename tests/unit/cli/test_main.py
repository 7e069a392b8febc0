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
    assert all(
        f"  {name} " in shown.output for name in ("up", "check", "logs", "down", "status", "models", "embed", "rerank")
    )


def test_help_imports_no_heavy_package() -> None:
    check = "import sys, torchless.cli.main; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)

    loaded = {name.partition(".")[0].strip("' ") for name in done.stdout.strip("[]\n").split(",")}
    assert "typer" in loaded
    assert loaded & {"grpc", "google", "numpy", "httpx", "pydantic", "supervisor", "psutil", "bentoml"} == set()


def test_version_option_prints_the_versions_of_torchless_and_python() -> None:
    assert run(app, ["--version"]).output.startswith(f"torchless {torchless.__version__}, Python 3.11")


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


def test_a_command_that_fails_does_not_wait_for_more_input() -> None:
    command = [sys.executable, "-m", "torchless.cli", "embed", "--gateway", f"http://127.0.0.1:{free_port()}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("a text\n" * 300)
        process.stdin.flush()

        assert process.wait(60) == 1
        (line,) = process.stderr.read().splitlines()
        assert "start the stack with `torchless up`" in line


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
    shown = run(app, ["up", "--state", str(tmp_path), "--python", f"bentos={tmp_path / 'python'}"])

    assert shown.exit_code == 1
    assert "run `make demo` once, or choose another with --python bentos=PATH" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_of_up_are_also_environment_variables(tmp_path: Path) -> None:
    shown = run(app, ["up", "--state", str(tmp_path)], env={"TORCHLESS_UP_PYTHON": f"bentos={tmp_path / 'missing'}"})

    assert shown.exit_code == 1
    assert str(tmp_path / "missing") in shown.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("gateway=70000", "gateway must be 1 to 65535, not '70000'"),
        ("metrics=65535", f"metrics must be 0 to {65536 - len(BENTOS)}, not '65535'"),
        ("embedding=", "'embedding=' must be written as NAME=VALUE"),
        ("embeding=50051", "did you mean embedding?"),
    ],
)
def test_a_wrong_port_option_is_explained(option: str, message: str) -> None:
    refused = run(app, ["up", "--port", option])

    assert refused.exit_code == 2
    assert message in refused.stderr


def test_ports_may_be_set_by_a_variable() -> None:
    refused = run(app, ["up"], env={"TORCHLESS_UP_PORT": "gateway=3700 embedding=0"})

    assert refused.exit_code == 2
    assert "embedding must be 1 to 65535, not '0'" in refused.stderr


def test_help_of_up_shows_the_default_ports() -> None:
    shown = " ".join(run(app, ["up", "--help"]).output.split())

    assert "gateway=3000, embedding=50051, reranking=50052, gpu=50056, metrics=9101" in shown


def test_lines_are_not_wrapped_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200)
    shown = run(app, ["down", "--state", str(long)], env={"COLUMNS": "40"})

    assert shown.output == f"no stack was started with its state in {long}\n"
