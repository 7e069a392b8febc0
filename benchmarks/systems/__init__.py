"""The systems that are measured, and their processes."""
