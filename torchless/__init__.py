"""Torchless: a retrieval stack whose API tier holds no PyTorch."""

__version__ = "0.1.0"
