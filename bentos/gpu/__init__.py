"""The GPU bento: the GPUs of one machine, their load, and leases on their memory."""
