"""The texts, requests and collections that the benchmarks use."""
