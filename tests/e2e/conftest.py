"""The whole stack, once for all tests that only ask it something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.running_stack import BENTOS_PYTHON, RunningStack, running_stack


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The embedding bento and the gateway on free ports."""
    if not BENTOS_PYTHON.is_file():
        missing(f"{BENTOS_PYTHON} is not there: `make test` makes it")
    with running_stack(tmp_path_factory.mktemp("running")) as stack:
        yield stack
