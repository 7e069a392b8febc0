"""The GPUs of one machine: what is there, how full it is, and leases on it."""
