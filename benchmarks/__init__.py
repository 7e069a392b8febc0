"""Measures the stack against the direct call and a peer: `python -m benchmarks`."""
