"""Encodes vectors for HTTP, from their buffers and never through Python's floats."""
