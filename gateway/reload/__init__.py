"""Hot reload of the settings file."""
