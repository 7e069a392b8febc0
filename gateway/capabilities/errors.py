"""Errors that the use cases find, where an API family answers them unlike others of their kind."""

from __future__ import annotations

from collections.abc import Callable

from torchless.contracts.errors import ErrorKind, FieldViolation, TorchlessError
from torchless.contracts.field_path import format_path, parse_path


class EmptyInputError(TorchlessError):
    """The caller's fault: nothing to work on, or an input without a character."""

    def __init__(self, field: str, description: str) -> None:
        violation = FieldViolation(parse_path(field), description)
        super().__init__(ErrorKind.INVALID_INPUT, f"{field}: {description}", violations=(violation,))


class UntokenizableInputError(TorchlessError):
    """The caller's fault: the vocabulary cannot read it, or does not hold it."""

    def __init__(self, error: TorchlessError) -> None:
        super().__init__(error.kind, error.message, violations=error.violations, metadata=error.metadata)


def retold(error: TorchlessError, named: Callable[[str], str]) -> TorchlessError:
    """`error` of a service in words of the request: its fields are called what the caller wrote.

    Args:
        error: What the service said.
        named: What the request calls a field of the service's.
    """
    return error.with_paths(lambda path: parse_path(named(format_path(path))))
