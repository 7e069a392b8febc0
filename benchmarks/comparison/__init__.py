"""Compares the speed of two checkouts in one run."""
