"""Settings: frozen, typed groups read from one YAML file and the environment."""

from torchless.settings.base import ProgramSettings, SettingsError, SettingsGroup
from torchless.settings.logs import LogSettings

__all__ = ["LogSettings", "ProgramSettings", "SettingsError", "SettingsGroup"]
