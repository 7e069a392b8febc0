"""The embedding bento: turns texts into vectors."""
