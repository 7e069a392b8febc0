"""How every program of ours is configured: one YAML file, then environment variables over it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)


class SettingsError(Exception):
    """A configuration that cannot be used; the message names each setting at fault and what to change."""


class SettingsGroup(BaseModel):
    """A small group of settings that belong together; frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
        path = os.environ.get(f"{cls.env_prefix}CONFIG")
        yaml = (YamlConfigSettingsSource(settings_cls, yaml_file=path),) if path else ()
        return (init_settings, env_settings, *yaml)

    @classmethod
    def load(cls) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: A value is missing, malformed or out of range, or the file is not there.
        """
        path = os.environ.get(f"{cls.env_prefix}CONFIG")
        if path and not Path(path).is_file():
            raise SettingsError(f"{cls.env_prefix}CONFIG names a file that is not there: {path}")
        try:
            return cls()
        except ValidationError as error:
            lines = [f"  {cls._name_of(e['loc'])}: {e['msg']}" for e in error.errors()]
            raise SettingsError(f"{cls.__name__}: these settings cannot be used\n" + "\n".join(lines)) from error

    @classmethod
    def _name_of(cls, location: tuple[int | str, ...]) -> str:
        dotted = ".".join(str(part) for part in location)
        variable = cls.env_prefix + "__".join(str(part).upper() for part in location)
        return f"{dotted} (in the environment {variable})"
