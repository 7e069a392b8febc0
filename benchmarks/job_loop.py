"""The child's side of `systems/worker_process.py`: one JSON object per line in, one per line out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]


def answer_jobs(answer: Callable[[Job], Any]) -> None:
    """Answers jobs from standard input until it closes.

    Output of libraries goes to standard error, so that it does not mix with the answers.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()
