"""How every program of ours is configured: one YAML file, then environment variables over it."""

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


class SettingsError(Exception):
    """A configuration that cannot be used; the message names each setting at fault and what to change.

    Args:
        message: For whoever runs the program; holds no values, for they may be keys.
        faults: The same for those who only call it, a line each: no paths, and no names but those of settings.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class SettingsGroup(BaseModel):
    """A small group of settings that belong together; frozen, and unknown names are refused.

    What a validator says is logged, and told to callers: it never holds the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _NotJSONError(ValueError):
    """A variable of a list or a table holds something else than JSON; the message is the variable's name."""


class _Environment(EnvSettingsSource):
    """The environment, which says of a value that is not JSON in which variable it is."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The list or table that `value` of the field is as JSON.

        Raises:
            _NotJSONError: It is none. Where the field may also be plain text, pydantic-settings then takes it as that.
        """
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            # Only the last part of the variable's name is told here. The value is not shown: it may be a key.
            prefix, last = self.env_prefix.lower(), field_name.lower()
            names = (n for n, v in self.env_vars.items() if v == value and n.startswith(prefix) and n.endswith(last))
            raise _NotJSONError(next(names, f"{prefix}{last}").upper()) from None


class ProgramSettings(BaseSettings):
    """Settings of one program.

    Read, the later over the earlier: defaults, the YAML file that `<PREFIX>CONFIG` names, environment variables
    `<PREFIX><FIELD>` with `__` between a group and its field. Unknown names in the file are refused.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        # A traceback in a log shows what pydantic says, and values may be keys.
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
        """The YAML file of this process; None: there is none."""
        path = os.environ.get(f"{cls.env_prefix}CONFIG")
        return Path(path) if path else None

    @classmethod
    def load(cls) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: A value is missing, malformed or out of range, or the file is not there or is no YAML.
        """
        try:
            return cls()
        except ValidationError as error:
            causes = _causes(error)
            lines = [f"  {cls._name_of(location)}: {message}" for location, message in causes]
            faults = [f"{cls._setting_at(location)}: {message}" for location, message in causes]
            raise SettingsError(
                f"{cls.__name__}: these settings cannot be used\n" + "\n".join(lines), faults
            ) from error
        except ParsingError as error:
            if not isinstance(error.__cause__, _NotJSONError):
                raise SettingsError(f"{cls.__name__}: these settings cannot be used\n  {error}") from error
            message = f"{error.__cause__} in the environment is not JSON: lists and tables are given as JSON"
            raise SettingsError(f"{cls.__name__}: these settings cannot be used\n  {message}", [message]) from None

    @classmethod
    def _read(cls, path: Path) -> dict[str, Any]:
        """What the YAML file at `path` holds; nothing, where it holds nothing but comments.

        Raises:
            SettingsError: It is not there, cannot be read, or is no table in YAML.
        """
        import yaml

        try:
            content = yaml.safe_load(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise cls._unreadable("is not there", path) from None
        except OSError as error:
            raise cls._unreadable(f"cannot be read ({type(error).__name__})", path) from None
        # The others come of dates that there are none of, and of brackets by the thousand.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            # What the parser says quotes the file, which may hold keys.
            mark = getattr(error, "problem_mark", None)
            place = f": line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
            raise cls._unreadable(f"is not YAML{place}", path) from None
        if content is None:
            return {}
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise cls._unreadable("is not a table of settings by their names", path)
        return content

    @classmethod
    def _unreadable(cls, how: str, path: Path) -> SettingsError:
        return SettingsError(f"{cls.env_prefix}CONFIG names a file that {how}: {path}", [f"the file {how}"])

    @classmethod
    def _setting_at(cls, location: tuple[int | str, ...]) -> str:
        """The name of the setting at `location`, or of the group around it: further in are names that users chose."""
        model: Any = cls
        names: list[str] = []
        for part in map(str, location):
            field = getattr(model, "model_fields", {}).get(part)
            if field is None:
                break
            names.append(part)
            model = field.annotation
        return ".".join(names) or "settings"

    @classmethod
    def _name_of(cls, location: tuple[int | str, ...]) -> str:
        dotted = ".".join(str(part) for part in location)
        variable = cls.env_prefix + "__".join(str(part).upper() for part in location)
        return f"{dotted} (in the environment {variable})"


def _causes(error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Place and message of each fault, without those that only follow from another further in.

    A list whose only entry is wrong, for instance, is then also said to be too short.
    """
    found = [(each["loc"], each["msg"]) for each in error.errors()]
    within = {location[:length] for location, _ in found for length in range(len(location))}
    return [(location, message) for location, message in found if location not in within]
