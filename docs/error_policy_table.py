"""Writes the table of errors in `docs/resilience.md` from `ErrorKind.policy`: `python -m docs.error_policy_table`."""

from __future__ import annotations

import re
from pathlib import Path

from torchless.contracts.errors import ErrorKind, ErrorPolicy, Retry

TARGET = Path(__file__).parent / "resilience.md"
_MARKED = re.compile(r"(<!-- error-policy:start -->\n).*(<!-- error-policy:end -->\n)", re.DOTALL)
_HEAD = """| kind | HTTP | retried | counts for the breaker | stream resumes | optional part is left out |
|---|---|---|---|---|---|
"""
_RETRIED = {Retry.NOWHERE: "no", Retry.ELSEWHERE: "once, elsewhere", Retry.ANYWHERE: "yes"}


def page() -> str:
    """`docs/resilience.md` with the table of the current policy."""
    rows = "".join(f"| {' | '.join(_cells(kind, kind.policy))} |\n" for kind in ErrorKind)
    text, replaced = _MARKED.subn(lambda found: found[1] + _HEAD + rows + found[2], TARGET.read_text())
    if replaced != 1:
        raise ValueError(f"{TARGET.name} must contain the markers of the error table once")
    return text


def _cells(kind: ErrorKind, policy: ErrorPolicy) -> tuple[str, ...]:
    counts = "no" if not policy.counts_for_breaker else "if long enough" if kind is ErrorKind.DEADLINE else "yes"
    return (
        kind.value,
        str(policy.http_status),
        _RETRIED[policy.retry],
        counts,
        "yes" if policy.resumes_stream else "no",
        "yes" if policy.degrades else "no",
    )


if __name__ == "__main__":
    TARGET.write_text(page())
