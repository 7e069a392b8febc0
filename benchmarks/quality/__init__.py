"""How well the stack finds what it should: `python -m benchmarks.quality`."""
