"""Whatever changes something over HTTP is told on `$server/command`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from fastapi.routing import APIRoute

from bridge import routes

READS = {"GET", "HEAD", "OPTIONS"}
NO_COMMANDS = {"bridge.routes.publish"}
"""What is sent is a record itself."""


def test_every_route_that_changes_something_tells() -> None:
    found = {}
    for module_info in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}."):
        router = getattr(importlib.import_module(module_info.name), "router", None)
        if router is None or module_info.name in NO_COMMANDS:
            continue
        for route in router.routes:
            if isinstance(route, APIRoute) and route.methods - READS:
                found[route.endpoint.__name__] = "tell_command(" in inspect.getsource(route.endpoint)
    assert {"close_connection", "forget_session", "trim", "delete", "clear_retained"} <= set(found)
    assert not [name for name, tells in found.items() if not tells]
