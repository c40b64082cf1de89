"""The command line: `headrace`. Exit codes: 0 fine, 1 failed at run time, 2 wrong usage or configuration."""

from __future__ import annotations

from bridge.cli.main import main

__all__ = ["main"]
