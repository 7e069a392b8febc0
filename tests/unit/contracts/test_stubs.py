"""The committed stubs are what the protos give, and the protos are documented."""

from __future__ import annotations

import itertools
import re

from torchless.contracts.generate import PROTOS, stale


def test_stubs_are_current() -> None:
    assert stale() == []


def test_protos_lie_under_the_path_of_their_package() -> None:
    for proto in PROTOS.rglob("*.proto"):
        package = re.search(r"^package ([\w.]+);", proto.read_text(), re.MULTILINE)
        assert package is not None
        assert proto.parent.relative_to(PROTOS).as_posix() == package[1].replace(".", "/")


def test_every_rpc_field_and_enum_value_carries_a_comment() -> None:
    thing = re.compile(r"^\s*(rpc |(?:repeated |optional )?[\w.]+ \w+ = \d+|[A-Z_]+ = \d+)")
    bare = []
    for proto in PROTOS.rglob("*.proto"):
        lines = proto.read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if thing.match(line) and not before.strip().startswith("//"):
                bare.append(f"{proto.name}: {line.strip()}")
    assert bare == []
