"""What the clients of all capabilities share: a channel, health, the default deadline, and errors of ours."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, Self

from grpc_health.v1 import health_pb2, health_pb2_grpc

from torchless.clients.call import CallContext
from torchless.clients.channel import open_channel
from torchless.clients.settings import ChannelSettings
from torchless.clients.translate import our_errors
from torchless.contracts.errors import invalid_input


class CapabilityClient:
    """Base of the typed clients. Made inside a running event loop, whose it is.

    Every method raises `TorchlessError` and nothing else; its kind says whose fault it was.

    Args:
        channel: Settings of the channel, or just an address.
    """

    capability: ClassVar[str]
    """Name of the capability in messages, for instance `embedding`."""
    service_name: ClassVar[str]
    """The gRPC service's full name, under which it reports its health."""

    def __init__(self, channel: ChannelSettings | str) -> None:
        self._settings = ChannelSettings(address=channel) if isinstance(channel, str) else channel
        self._channel = open_channel(self._settings)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls in flight end with UNREACHABLE."""
        await self._channel.close()

    async def ready(self, context: CallContext = CallContext()) -> bool:
        """Whether the service says that it is SERVING (grpc.health.v1).

        Raises:
            TorchlessError: UNREACHABLE or DEADLINE, when it says nothing.
        """
        with self._our_errors():
            response = await self._health.Check(  # type: ignore[attr-defined]  # absent from the stub
                health_pb2.HealthCheckRequest(service=self.service_name), timeout=self._timeout(context)
            )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _our_errors(self) -> AbstractContextManager[None]:
        return our_errors(self.capability)

    def _timeout(self, context: CallContext) -> float:
        return self._settings.deadline_s if context.deadline_s is None else context.deadline_s


def valid_text(text: str, field: str) -> str:
    """`text` itself, if protobuf can carry it.

    Raises:
        TorchlessError: INVALID_INPUT, naming `field`, when it is not valid Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid_input(field, "is not valid Unicode: it holds half of a surrogate pair") from error
    return text
