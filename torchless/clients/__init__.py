"""Typed async gRPC clients, one a capability: what a program without torch calls the services with."""

import logging

# A library's log lines are shown where its program asks for them, and not for want of a handler.
logging.getLogger(__name__).addHandler(logging.NullHandler())
