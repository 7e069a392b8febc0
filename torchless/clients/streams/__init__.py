"""Bulk streams that survive the loss of an endpoint."""
