"""Says where a wrong setting is and what to change: the file with the line, or the environment variable."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

Location = tuple[int | str, ...]
"""Names and list positions on the way to a setting, as pydantic reports them."""
_SHOULD = re.compile(r"\w+ (should .*)")
"""pydantic's messages, for example `Input should be greater than 0`."""


class Origins:
    """Where the settings of one program were set.

    Args:
        settings: The class of the settings.
        prefix: Prefix of its environment variables.
        file: The YAML file; None: there is none.
        environment: The environment variables.
    """

    def __init__(
        self, settings: type[BaseModel], prefix: str, file: Path | None, environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._file = file
        self._variables = {name.upper(): name for name in environment}

    def sentences(self, faults: Iterable[tuple[Location, str, str]]) -> list[str]:
        """One sentence about each fault: where it is and what is wrong. Those of the file come first, by their lines.

        Args:
            faults: For each its location, pydantic's type of the error, for example `extra_forbidden`, and its message.
        """
        placed = [(self._origin(location), self._problem(location, *said)) for location, *said in faults]
        placed.sort(key=lambda each: each[0][0] or sys.maxsize)
        return [": ".join(filter(None, (where, what))) for (_, where), what in placed]

    def _problem(self, location: Location, kind: str, message: str) -> str:
        name = ".".join(map(str, location))
        if kind == "extra_forbidden":
            return f"{name} is not a setting{self._suggestion(location)}"
        if kind == "missing":
            return f"{name} is required"
        if (found := _SHOULD.match(message)) and name:
            return f"{name} {found[1]}"
        return ": ".join(filter(None, (name, message.removeprefix("Value error, "))))

    def misspelt_variables(self) -> Iterator[str]:
        """A sentence about each variable that is ignored because its name is almost that of a setting."""
        for upper, variable in sorted(self._variables.items()):
            first, separator, rest = upper.removeprefix(self._prefix).partition("__")
            if not upper.startswith(self._prefix) or first == "CONFIG" or first.lower() in self._settings.model_fields:
                continue
            if close := get_close_matches(first.lower(), self._settings.model_fields, n=1, cutoff=0.75):
                right = f"{self._prefix}{close[0].upper()}{separator}{rest}"
                yield f"{variable} in the environment is not a setting; did you mean {right}?"

    def _origin(self, location: Location) -> tuple[int, str]:
        """The line that sets `location`, 0 for a variable, and how to say it. A variable wins over the file.

        A list is one variable, whichever of its items is wrong.
        """
        names = [str(part).upper() for part in itertools.takewhile(lambda part: isinstance(part, str), location)]
        wanted = self._prefix + "__".join(names)
        line, depth = (0, 0) if self._file is None else _line_of(self._file, location)
        in_file = "" if self._file is None else f"{shown(self._file)}, line {line}" if line else shown(self._file)
        if names and wanted in self._variables:
            return 0, f"{self._variables[wanted]} in the environment"
        if names and depth == len(location):
            return line, in_file
        groups = (self._prefix + "__".join(names[:length]) for length in range(len(names) - 1, 0, -1))
        below = (name for name in self._variables if names and name.startswith(f"{wanted}__"))
        variable = next((name for name in (*groups, *below) if name in self._variables), None)
        return (line, in_file) if variable is None else (0, f"{self._variables[variable]} in the environment")

    def _suggestion(self, location: Location) -> str:
        group, name = location[:-1], str(location[-1])
        siblings = dict(_children(_model_at(self._settings, group)))
        close = get_close_matches(name, siblings, n=1)
        # A right name in a wrong group, for example because of the indentation.
        elsewhere = [dotted for dotted in _dotted(self._settings) if dotted.rpartition(".")[2] == name]
        right = ".".join(map(str, (*group, close[0]))) if close else next(iter(elsewhere), "")
        return f"; did you mean {right}?" if right else ""


def shown(path: Path) -> str:
    """The path as a message shows it: relative if it is below the current folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # keeps links, which the user knows by their names
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def repeated(node: Any) -> tuple[str, int] | None:
    """The first name that a mapping of a YAML node has twice, with the line of the second; None if there is none."""
    import yaml

    left, seen = [node], set[int]()
    while left:
        each = left.pop(0)
        if id(each) in seen:  # an alias, which may be inside itself
            continue
        seen.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            left += each.value
        elif isinstance(each, yaml.MappingNode):
            names = set[str]()
            for key, value in each.value:
                if isinstance(key, yaml.ScalarNode) and key.value in names:
                    return key.value, key.start_mark.line + 1
                names.add(str(key.value))
                left.append(value)
    return None


def _line_of(file: Path, location: Location) -> tuple[int, int]:
    """The line of the deepest part of `location` that the YAML file has, from 1, and the number of parts found."""
    import yaml

    try:
        node = yaml.compose(file.read_bytes(), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return 0, 0
    line, depth = 0, 0
    for part in location:
        entry = _entry(node, part)
        if entry is None:
            break
        mark, node = entry
        line, depth = mark.line + 1, depth + 1
    return line, depth


def _entry(node: Any, part: int | str) -> tuple[Any, Any] | None:
    """The mark of the key, or of the item, and the value of one entry of a YAML node."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        # The last of equal keys counts.
        found = [(key.start_mark, value) for key, value in node.value if key.value == str(part)]
        return found[-1] if found else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark, node.value[part]
    return None


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The group of settings at `location`; None if there is no such group."""
    found: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str):
            found = dict(_children(found)).get(part)
    return found


def _children(model: type[BaseModel] | None) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """The settings of a group, each with the group that it is or that its items are."""
    for name, field in (model.model_fields if model is not None else {}).items():
        yield name, _group_in(field.annotation)


def _group_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_group_in, get_args(annotation))), None)


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, group in _children(model):
        yield f"{prefix}{name}"
        if group is not None:
            yield from _dotted(group, f"{prefix}{name}.")
