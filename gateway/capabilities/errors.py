"""Errors that the use cases find, where an API family answers them unlike others of their kind."""

from __future__ import annotations

from torchless.contracts.errors import ErrorKind, FieldViolation, TorchlessError, describe
from torchless.contracts.field_path import FieldPath


class EmptyInputError(TorchlessError):
    """The caller's fault: no input, or an empty one."""

    def __init__(self, path: FieldPath, description: str) -> None:
        violations = (FieldViolation(path, description),)
        super().__init__(ErrorKind.INVALID_INPUT, describe(violations), violations=violations)


class UntokenizableInputError(TorchlessError):
    """The caller's fault: the vocabulary cannot read the input, or does not contain it."""

    def __init__(self, error: TorchlessError) -> None:
        super().__init__(error.kind, error.message, violations=error.violations, metadata=error.metadata)


class NotConfiguredError(TorchlessError):
    """The operator's choice: the settings name no address for this service."""

    def __init__(self, name: str, title: str = "") -> None:
        super().__init__(
            ErrorKind.UNREACHABLE,
            f"no {title or name} service is configured: set {name}.address in the gateway's settings",
        )
