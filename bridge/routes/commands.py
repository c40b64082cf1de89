"""Commands: whatever an administrator changes over HTTP is told on `$server/command`, once it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import Request

    from bridge.node import Node


def tell_command(node: Node, request: Request, action: str, **fields: Any) -> None:
    """Tell who did what; `fields` say to what, and what came of it."""
    client = request.client
    address = f"{client.host}:{client.port}" if client is not None else None
    node.events.tell("command", action=action, subject="anonymous", address=address, **fields)
