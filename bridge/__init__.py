"""Headrace's bridge: streams, the live side and HTTP around the broker."""

__version__ = "0.1.0"
