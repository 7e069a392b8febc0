"""What became of the newest content of the settings' file, for whoever asks how the gateway is."""

from __future__ import annotations


class ReloadState:
    """One a worker; `refused` is why the newest content is not in force, without values or places; None: it is."""

    def __init__(self) -> None:
        self.refused: str | None = None
