"""Checks a machine with a GPU: the tests marked `gpu`, fidelity, throughput, and the service over gRPC."""
