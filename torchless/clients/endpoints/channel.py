"""Opens gRPC channels."""

from __future__ import annotations

import grpc

from torchless.clients.settings import ClientSettings

_MIB = 1024 * 1024
_DNS_EVERY_MS = 1000


def open_channel(settings: ClientSettings, address: str | None = None) -> grpc.aio.Channel:
    """A channel to `address`, or to `settings.address`; it connects at the first call, and again after a loss."""
    connection = settings.connection
    options = [
        ("grpc.max_send_message_length", connection.max_message_mib * _MIB),
        ("grpc.max_receive_message_length", connection.max_message_mib * _MIB),
        ("grpc.keepalive_time_ms", int(connection.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(connection.keepalive_timeout_s * 1000)),
        # A health watch is silent for hours; by default gRPC pings its connection only twice.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", int(connection.reconnect_min_s * 1000)),
        # Despite its name, this is the timeout of connecting.
        ("grpc.min_reconnect_backoff_ms", int(connection.timeout_s * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(connection.reconnect_max_s * 1000)),
        # When the connection to a name is lost, gRPC resolves the name again, by default at most twice a minute.
        ("grpc.dns_min_time_between_resolutions_ms", _DNS_EVERY_MS),
        # The client retries; gRPC's own retries would hide attempts from it.
        ("grpc.enable_retries", 0),
        # By default gRPC shares subchannels between channels with equal options.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(settings.address if address is None else address, options=options)
