"""What the answers to a command's calls say about themselves: truncated texts, and the revision that made them."""

from __future__ import annotations

from collections.abc import Mapping

from torchless.cli.console import console

TRUNCATED_HEADER = "x-torchless-truncated"
REVISION_HEADER = "x-torchless-revision"


class Provenance:
    """Collects what the answers to several calls say, and warns at the end."""

    def __init__(self) -> None:
        self.truncated = 0
        """How many inputs were truncated."""
        self.revisions: dict[str, None] = {}
        """Revisions of the model, in the order of their first answers."""

    def add(self, truncated: int, revision: str) -> None:
        """Adds one answer; an empty revision is not known."""
        self.truncated += truncated
        if revision:
            self.revisions[revision] = None

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Adds an answer of the gateway."""
        self.add(int(headers.get(TRUNCATED_HEADER, "0")), headers.get(REVISION_HEADER, ""))

    def warnings(self, inputs: str) -> list[str]:
        """One sentence for each thing that the user should know.

        Args:
            inputs: Name of what was sent, for example `texts`.
        """
        found = []
        if self.truncated:
            found.append(f"truncated {inputs}: {self.truncated}; the model reads only part of a text this long")
        if len(self.revisions) > 1:
            names = " and ".join(self.revisions)
            found.append(f"the model changed during the run: results of the revisions {names} cannot be compared")
        return found

    def print(self, inputs: str) -> None:
        """Prints the warnings to the standard error, one a line."""
        for warning in self.warnings(inputs):
            console(stderr=True).print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
