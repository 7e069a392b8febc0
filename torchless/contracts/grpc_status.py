"""`TorchlessError` to and from `google.rpc.Status`, the richer error model of gRPC.

Source: https://google.aip.dev/193 and `google/rpc/error_details.proto`.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from torchless.contracts.errors import (
    ERROR_DOMAIN,
    KIND_OF_GRPC_STATUS,
    ErrorKind,
    FieldViolation,
    Resource,
    ResourceType,
    TorchlessError,
)
from torchless.contracts.field_path import parse_path

HEALTH_REASON = "torchless-reason-bin"
"""Trailing metadata of a health check that answers NOT_SERVING: why, as a serialized `google.rpc.Status`."""
_CODE_OF_NUMBER = {status.value[0]: status for status in KIND_OF_GRPC_STATUS}


def to_status(error: TorchlessError) -> Status:
    """The status that carries all of `error`: kind, message, violations, retry hint, metadata and resource."""
    status = Status(code=error.kind.policy.grpc_status.value[0], message=error.message)
    info = ErrorInfo(reason=error.kind.value, domain=ERROR_DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if error.violations:
        fields = [BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations]
        status.details.append(_packed(BadRequest(field_violations=fields)))
    if error.retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.append(_packed(retry))
    if error.resource is not None:
        resource = ResourceInfo(resource_type=error.resource.type.value, resource_name=error.resource.name)
        status.details.append(_packed(resource))
    return status


def from_status(status: Status) -> TorchlessError:
    """The error that `status` carries; a status of another domain gets the kind of its code.

    Details that cannot be read are ignored: a foreign service may send anything.
    """
    code = _CODE_OF_NUMBER.get(status.code)
    kind = KIND_OF_GRPC_STATUS[code] if code else ErrorKind.INTERNAL
    violations: list[FieldViolation] = []
    retry_after_s: float | None = None
    metadata: dict[str, str] = {}
    resource: Resource | None = None
    for detail in status.details:
        try:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                info = ErrorInfo.FromString(detail.value)
                if info.domain == ERROR_DOMAIN and info.reason in ErrorKind.__members__:
                    kind, metadata = ErrorKind(info.reason), dict(info.metadata)
            elif detail.Is(BadRequest.DESCRIPTOR):
                fields = BadRequest.FromString(detail.value).field_violations
                violations.extend(FieldViolation(parse_path(v.field), v.description) for v in fields)
            elif detail.Is(RetryInfo.DESCRIPTOR):
                retry_after_s = RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9
            elif detail.Is(ResourceInfo.DESCRIPTOR):
                resource = _resource(ResourceInfo.FromString(detail.value))
        except DecodeError:
            continue
    return TorchlessError(
        kind,
        status.message,
        violations=tuple(violations),
        retry_after_s=retry_after_s,
        metadata=metadata,
        resource=resource,
    )


def _resource(info: ResourceInfo) -> Resource | None:
    try:
        return Resource(ResourceType(info.resource_type), info.resource_name)
    except ValueError:  # from a service newer than this client, or of another domain
        return None


def _packed(message: ErrorInfo | BadRequest | RetryInfo | ResourceInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed
