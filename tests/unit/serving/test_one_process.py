"""Serving in the process of BentoML's command. tests/integration/embedding/test_starting.py runs the real one."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from bentos.serving.metrics import serve_metrics
from bentos.serving.one_process import _create_worker, _OneProcess, refuse_used_port
from torchless.process import EXIT_CONFIGURATION

ARGUMENTS = ["-m", "bentoml_cli.worker.grpc_api_server", "some.bento:svc", "--worker-id", "$(CIRCUS.WID)"]


@pytest.fixture(autouse=True)
def _logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest reads what reaches the root logger."""
    monkeypatch.setattr(logging.getLogger("bentos"), "propagate", True)


def test_several_workers_become_one_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    worker = _create_worker("grpc_api_server", ARGUMENTS, numprocesses=4)
    assert list(worker.arguments) == ARGUMENTS
    (record,) = caplog.records
    assert "1 worker is started instead of 4" in record.getMessage()


def test_one_worker_needs_no_line(caplog: pytest.LogCaptureFixture) -> None:
    _create_worker("grpc_api_server", ARGUMENTS, numprocesses=1)
    assert caplog.records == []


def test_http_ends_with_the_command_to_use(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        _create_worker("api_server", ARGUMENTS, numprocesses=1)
    assert caught.value.code == EXIT_CONFIGURATION
    (record,) = caplog.records
    assert "`bentoml serve-grpc some.bento:svc`" in record.getMessage()


class Broken:
    """A worker whose port is taken."""

    def serve(self) -> None:
        raise RuntimeError("Failed to bind to address\n127.0.0.1:1")


def test_a_service_that_cannot_run_ends_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    with pytest.raises(SystemExit) as caught:
        _OneProcess([broken], endpoint="tcp://unused").start(cb=lambda _: pytest.fail("it prints an address"))
    assert caught.value.code == 1
    (record,) = caplog.records
    assert record.getMessage() == "the service cannot run: Failed to bind to address 127.0.0.1:1"


def test_a_metrics_port_in_use_is_replaced_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = serve_metrics("127.0.0.1", port)
    assert taken not in {0, port}
    (record,) = caplog.records
    assert f"the metrics port {port} is in use" in record.getMessage()
    assert str(taken) in record.getMessage()


def test_no_metrics_are_served_on_port_0() -> None:
    assert serve_metrics("127.0.0.1", 0) == 0


@pytest.mark.parametrize("share", [True, False], ids=["shared", "not shared"])
def test_a_port_that_another_program_listens_on_is_refused(share: bool) -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        with pytest.raises(OSError, match=f"port {port} is used by another program; choose another with --port"):
            refuse_used_port("127.0.0.1", port)


def test_a_port_with_connections_of_an_ended_program_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = listening.accept()
            accepted.close()  # the side that closes first is the one that TCP remembers
            client.recv(1)
    refuse_used_port(address[0], str(address[1]))
