"""Vectors to what travels over HTTP, from their buffer and never through Python's floats."""
