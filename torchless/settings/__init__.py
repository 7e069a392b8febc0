"""Settings: frozen, typed groups read from one YAML file and the environment."""

from torchless.settings.base import ProgramSettings, SettingsError, SettingsGroup

__all__ = ["ProgramSettings", "SettingsError", "SettingsGroup"]
