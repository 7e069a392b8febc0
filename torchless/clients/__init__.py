"""Typed async gRPC clients, one per capability, for programs without torch."""

import logging

# Without a handler, Python would print a library's warnings even if the program configures no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())
