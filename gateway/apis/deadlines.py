"""Default deadlines that the routes of several API families share."""

from __future__ import annotations

from gateway.settings import GatewaySettings


def reranking_deadline(settings: GatewaySettings) -> float:
    """Default deadline of a request that reranks, in seconds."""
    return settings.reranking.deadline_s
