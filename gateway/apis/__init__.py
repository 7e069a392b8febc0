"""One file an API family; handlers translate and call, and nothing else."""
