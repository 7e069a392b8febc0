"""Retrieval quality of the stack: `python -m benchmarks.quality`."""
