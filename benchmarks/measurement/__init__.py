"""Takes samples: throughput, latency, CPU time and batch sizes."""
