"""Changes of the settings' file: what is applied, what is refused, and what is said of both."""

from __future__ import annotations
