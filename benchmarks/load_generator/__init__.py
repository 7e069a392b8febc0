"""Processes that send requests and time the answers."""
