"""Settings that every client shares."""

from __future__ import annotations

from pydantic import Field

from torchless.settings import SettingsGroup


class ChannelSettings(SettingsGroup):
    """The gRPC channel to one capability."""

    address: str
    """Where the service listens: `host:port`, or any gRPC target such as `dns:///name:port`."""
    deadline_s: float = Field(default=30.0, gt=0, le=3600)
    """Deadline of a call whose caller gives none, in seconds."""
    max_message_mib: int = Field(default=64, ge=1, le=1024)
    """Largest message sent or received, in MiB. Token-level vectors of a full batch are the largest."""
    keepalive_s: float = Field(default=30.0, ge=10)
    """Idle time after which the peer is asked whether it is still there, in seconds."""
    keepalive_timeout_s: float = Field(default=10.0, gt=0)
    """Time that the peer has to answer that, in seconds."""
    reconnect_min_s: float = Field(default=0.1, gt=0)
    """First pause before connecting again, in seconds; it doubles up to `reconnect_max_s`."""
    reconnect_max_s: float = Field(default=5.0, gt=0)
    """Longest pause before connecting again, in seconds."""
