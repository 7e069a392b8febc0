"""Conflicts of ports."""

from __future__ import annotations

import socket

import pytest

from torchless.cli.errors import StackError
from torchless.cli.free_ports import free_ports
from torchless.cli.ports import Port, check_ports


def test_free_ports_are_accepted() -> None:
    one, two = free_ports(2)
    check_ports([Port(one, "one"), Port(two, "two", "0.0.0.0")])


def test_every_conflict_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken, free = server.getsockname()[1], free_ports(1)[0]
        with pytest.raises(StackError) as caught:
            check_ports([Port(taken, "one"), Port(free, "two"), Port(free, "metrics"), Port(free, "far", "192.0.2.1")])

    both, in_use, no_interface = str(caught.value).splitlines()
    assert both == f"two and metrics and far both use port {free}; change one with --port far=NUMBER"
    assert in_use.startswith(f"port {taken} on 127.0.0.1 cannot be used (process ")
    assert in_use.endswith("choose another with --port one=NUMBER")
    assert "192.0.2.1 cannot be used (cannot assign requested address)" in no_interface
