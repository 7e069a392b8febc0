"""How the gateway ends if it cannot start, as BentoML serves it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.running_stack import ROOT
from torchless.cli.free_ports import free_port
from torchless.process import EXIT_CONFIGURATION


def test_wrong_settings_end_the_command_with_one_sentence_each(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("limits:\n  itmes: 5\nworkers: 0\n")
    serve = ["-m", "bentoml", "serve", "gateway.service:Gateway", "--port", str(free_port())]

    done = subprocess.run(
        [sys.executable, *serve],
        cwd=ROOT,
        env={**os.environ, "TORCHLESS_GATEWAY_CONFIG": str(file), "BENTOML_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == EXIT_CONFIGURATION
    assert (done.stdout + done.stderr).splitlines() == [
        f"{file}, line 2: limits.itmes is not a setting; did you mean limits.items?",
        f"{file}, line 3: workers should be greater than or equal to 1",
    ]
