"""The endpoints behind one client: where they are, how they are, and which of them gets the next call."""
