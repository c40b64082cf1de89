"""A node comes to its end whatever fails on the way there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import Config
from bridge.node import Node
from bridge.streams.sqlite_store import SqliteStore


async def test_a_part_that_fails_at_the_end_keeps_no_other_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        raise LookupError

    config = Config.model_validate(
        {"data": tmp_path, "mqtt": {"bind": "127.0.0.1:0"}, "websocket": {"bind": "127.0.0.1:0"}}
    )
    with pytest.raises(LookupError):
        async with Node(config) as node:
            monkeypatch.setattr(node.hub, "close", fails)
    store = SqliteStore.open(tmp_path)  # nobody holds the directory
    await store.close()
