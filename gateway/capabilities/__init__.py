"""The gateway's use cases. They know no HTTP."""
