"""Settings of every program: a YAML file, overridden by environment variables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as ParsingError

from torchless.settings.problems import Location, Origins, repeated, shown


class SettingsError(Exception):
    """A configuration that cannot be used; the message says for each fault where it is and what to change.

    Args:
        message: For the operator, one sentence a line. It contains no values, because they may be secrets.
        faults: The same for callers, one line for each fault, without paths and without names that users chose.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class SettingsGroup(BaseModel):
    """A group of settings; frozen, and unknown names are refused.

    Messages of validators are logged and sent to callers, so they never contain the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _NotJSONError(ValueError):
    """The variable of a list or a table is not JSON; the message is the name of the variable."""


class _Environment(EnvSettingsSource):
    """The environment; names the variable of a value that is not JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Parses `value` as JSON.

        Raises:
            _NotJSONError: It is not JSON. If the field may also be plain text, pydantic-settings then takes it as text.
        """
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            # `field_name` is only the last part of the variable's name. The value is not shown: it may be a secret.
            prefix, last = self.env_prefix.lower(), field_name.lower()
            names = (n for n, v in self.env_vars.items() if v == value and n.startswith(prefix) and n.endswith(last))
            raise _NotJSONError(next(names, f"{prefix}{last}").upper()) from None


class ProgramSettings(BaseSettings):
    """Settings of one program.

    Sources, the later over the earlier: defaults, the YAML file named by `<PREFIX>CONFIG`, environment variables
    `<PREFIX><FIELD>` with `__` between a group and its field. Unknown names in the file are refused.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        # Tracebacks show pydantic's messages, and values may be secrets.
        hide_input_in_errors=True,
    )
    env_prefix: ClassVar[str]
    """Prefix of the program's environment variables, for instance `TORCHLESS_GATEWAY_`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.model_config = {**cls.model_config, "env_prefix": cls.env_prefix}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the YAML file."""
        path = cls.file()
        file = () if path is None else (InitSettingsSource(settings_cls, cls._read(path)),)
        return (init_settings, _Environment(settings_cls), *file)

    @classmethod
    def file(cls) -> Path | None:
        """The YAML file of this process, or None."""
        path = os.environ.get(f"{cls.env_prefix}CONFIG")
        return Path(path) if path else None

    @classmethod
    def origins(cls) -> Origins:
        """Where the settings of this process are set."""
        return Origins(cls, cls.env_prefix, cls.file(), os.environ)

    @classmethod
    def load(cls) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: A value is missing, malformed or out of range, or the file is missing or not YAML.
        """
        try:
            return cls()
        except ValidationError as error:
            causes = _causes(error)
            faults = [f"{cls._setting_at(location)}: {message}" for location, _, message in causes]
            raise SettingsError("\n".join(cls.origins().sentences(causes)), faults) from error
        except ParsingError as error:
            if not isinstance(error.__cause__, _NotJSONError):
                raise SettingsError(str(error)) from error
            message = f"{error.__cause__} in the environment is not JSON; write lists and tables as JSON"
            raise SettingsError(message, [message]) from None

    @classmethod
    def _read(cls, path: Path) -> dict[str, Any]:
        """The contents of the YAML file at `path`; empty if it has only comments.

        Raises:
            SettingsError: The file is missing, cannot be read, or is not a YAML mapping.
        """
        import yaml

        try:
            loader = yaml.SafeLoader(path.read_bytes())
            node = loader.get_single_node()
            content = None if node is None else loader.construct_document(node)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise cls._unreadable(path, "does not exist") from None
        except OSError as error:
            raise cls._unreadable(path, f"cannot be read ({type(error).__name__})") from None
        # ValueError: an impossible date. RecursionError: thousands of brackets.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # The parser's message quotes the file, which may contain secrets.
            mark = getattr(error, "problem_mark", None)
            place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
            raise _not_as_expected(path, place, "is not YAML") from None
        if content is None:
            return {}
        if (again := repeated(node)) is not None:
            # YAML would take the last and drop the others.
            name, line = again
            raise SettingsError(
                f"{shown(path)}, line {line}: {name} is set twice", [f"the file sets a name twice: line {line}"]
            )
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise _not_as_expected(path, "", "is not a mapping of setting names to values")
        return content

    @classmethod
    def _unreadable(cls, path: Path, how: str) -> SettingsError:
        return SettingsError(f"{cls.env_prefix}CONFIG names a file that {how}: {path}", [f"the file {how}"])

    @classmethod
    def _setting_at(cls, location: Location) -> str:
        """The name of the setting at `location`, or of its group: names below a setting are chosen by users."""
        model: Any = cls
        names: list[str] = []
        for part in map(str, location):
            field = getattr(model, "model_fields", {}).get(part)
            if field is None:
                break
            names.append(part)
            model = field.annotation
        return ".".join(names) or "settings"


def _causes(error: ValidationError) -> list[tuple[Location, str, str]]:
    """Location, type and message of each fault, without faults that follow from a fault inside them.

    For example, pydantic also reports a list as too short when its only entry is wrong.
    """
    found = [(each["loc"], each["type"], each["msg"]) for each in error.errors()]
    within = {location[:length] for location, _, _ in found for length in range(len(location))}
    return [each for each in found if each[0] not in within]


def _not_as_expected(path: Path, place: str, how: str) -> SettingsError:
    at = f", {place}" if place else ""
    return SettingsError(f"{shown(path)}{at}: the file {how}", [": ".join(filter(None, (f"the file {how}", place)))])
