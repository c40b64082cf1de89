"""Headrace's bridge: streams, the live side and HTTP around the broker.

from bridge import create_app
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import __version__

if TYPE_CHECKING:
    from bridge.app import create_app

__all__ = ["__version__", "create_app"]


def __getattr__(name: str) -> object:
    """`create_app`, loaded when it is asked for: the history reader imports this package and needs no web server."""
    if name == "create_app":
        from bridge.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
