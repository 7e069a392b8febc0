"""What the other tests rest on: the vectors that clients are held against, and the watch over the network."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from tests.compat.network_watch import NetworkWatch
from tests.compat.plain_http import TEXTS, PlainHTTP, assert_same
from tests.running_stack import GATEWAY_PYTHON, ROOT, RunningStack


def test_the_gateways_vectors_are_those_of_the_embedding_service(stack: RunningStack, plain: PlainHTTP) -> None:
    command = [str(GATEWAY_PYTHON), "-m", "torchless.cli", "embed", "--json", "--address", stack.addresses["embedding"]]
    answer = subprocess.run([*command, *TEXTS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    by_text = {row["text"]: row["vector"] for row in map(json.loads, answer.splitlines())}

    assert_same([by_text[text] for text in TEXTS], plain.vectors(TEXTS))


def test_the_watch_hears_of_connections_that_leave_this_machine(network: NetworkWatch) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): nothing answers there.
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("192.0.2.1", 9), timeout=5):
        pass
    with socket.socket() as direct, pytest.raises(ConnectionRefusedError):
        direct.connect(("192.0.2.2", 9))
    with pytest.raises(ConnectionRefusedError):
        socket.getaddrinfo("client.invalid", 443)

    assert network.strangers == ["192.0.2.1", "192.0.2.2", "client.invalid"]
    network.strangers.clear()
