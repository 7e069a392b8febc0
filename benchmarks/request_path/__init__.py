"""Counts the files of this project that one request runs through."""
