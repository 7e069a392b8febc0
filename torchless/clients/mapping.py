"""Between the dataclasses of the clients and the messages of the contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, cast, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from torchless.contracts.errors import invalid_input
from torchless.contracts.field_path import FieldPath

D = TypeVar("D")
M = TypeVar("M", bound=Message)
P = ParamSpec("P")

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def reader(message_type: type[Message], target: type[D]) -> Callable[[Any], D]:
    """A function that makes a `target` from a message; build it once, at import.

    Each field of the dataclass `target` is read from the message's field of the same name: `X | None` is None where the
    field is absent, `tuple[X, ...]` and `list[X]` take repeated fields, nested dataclasses take messages, and an enum
    takes the value of the same name. An enum's first member stands for values without a member, such as newer ones.

    Raises:
        TypeError: The message has no such field.
    """
    return _reader(cast(Descriptor, message_type.DESCRIPTOR), target)


def build(kind: Callable[P, M], *args: P.args, **values: P.kwargs) -> M:
    """`kind(**values)`, a message.

    Raises:
        TorchlessError: INVALID_INPUT, naming the field that cannot carry its value.
    """
    return build_at((), kind, *args, **values)


def build_at(path: FieldPath, kind: Callable[P, M], *args: P.args, **values: P.kwargs) -> M:
    """As `build`, for a message that is the field `path` of another one."""
    try:
        return kind(*args, **values)
    except ValueError:  # UnicodeEncodeError is one as well
        _refuse_misfit(kind.DESCRIPTOR, values, path)  # type: ignore[attr-defined]
        raise


def check_text(path: FieldPath, text: str) -> None:
    """Accepts text that protobuf can carry.

    Raises:
        TorchlessError: INVALID_INPUT, naming the field.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid_input(path, "must be valid Unicode; it contains half of a surrogate pair") from error


def check_number(path: FieldPath, number: int, cpp_type: int) -> None:
    """Accepts numbers that fit into a field of this type, one of `FieldDescriptor.CPPTYPE_...`.

    Raises:
        TorchlessError: INVALID_INPUT, naming the field.
    """
    lowest, highest = _RANGES[cpp_type]
    if not lowest <= number <= highest:
        raise invalid_input(path, f"must be a whole number from {lowest} to {highest}")


def _reader(descriptor: Descriptor, target: type[D]) -> Callable[[Any], D]:
    hints, names = get_type_hints(target), [field.name for field in fields(target)]  # type: ignore[arg-type]
    if missing := [name for name in names if name not in descriptor.fields_by_name]:
        raise TypeError(f"{descriptor.full_name} has no field {missing[0]}, which {target.__name__} has")
    read_all = attrgetter(*names, names[0])  # the first one twice: of a single name it would not make a tuple
    optional = [(index, name) for index, name in enumerate(names) if NoneType in get_args(hints[name])]
    converters = [
        (index, converter)
        for index, name in enumerate(names)
        if (converter := _converter(descriptor.fields_by_name[name], hints[name])) is not None
    ]

    def read(message: Any) -> D:
        *values, _ = read_all(message)
        for index, convert in converters:
            values[index] = convert(values[index])
        for index, name in optional:
            if not message.HasField(name):
                values[index] = None
        return target(*values)

    return read


def _converter(field: FieldDescriptor, hint: Any) -> Callable[[Any], Any] | None:
    """Converts the field's value to `hint`; None: no conversion is needed."""
    if isinstance(hint, UnionType):
        (inner,) = (kind for kind in get_args(hint) if kind is not NoneType)
        return _converter(field, inner)
    if (origin := get_origin(hint)) in {tuple, list}:
        convert = _converter(field, get_args(hint)[0])
        return origin if convert is None else lambda values: origin(map(convert, values))
    if is_dataclass(hint) and isinstance(hint, type):
        return _reader(cast(Descriptor, field.message_type), hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        first, members = next(iter(hint)), _members(cast(EnumDescriptor, field.enum_type), hint)
        return lambda number: members.get(number, first)
    return None


def _members(descriptor: EnumDescriptor, kind: type[Enum]) -> dict[int, Enum]:
    """Members of `kind` by the number of the value that has their name: `EVENT_KIND_EXPIRED` is `EXPIRED`."""
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in descriptor.name)[1:].upper() + "_"
    names = {value.number: value.name.removeprefix(prefix) for value in descriptor.values}
    return {number: kind[name] for number, name in names.items() if name in kind.__members__}


def _refuse_misfit(descriptor: Descriptor, values: Mapping[str, Any], path: FieldPath) -> None:
    """Raises the error of the first value that its field cannot carry."""
    for name, value in values.items():
        cpp_type = descriptor.fields_by_name[name].cpp_type
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        for index, entry in enumerate(value if is_list else [value]):
            where = (*path, name, index) if is_list else (*path, name)
            if isinstance(entry, str):
                check_text(where, entry)
            elif isinstance(entry, int) and cpp_type in _RANGES:
                check_number(where, entry, cpp_type)
