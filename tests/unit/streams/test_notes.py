"""Small texts that outlive the process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.streams.notes import Notes
from bridge.streams.sqlite_store import SqliteStore
from tests.support.conditions import eventually_async


async def test_a_note_is_told_when_it_is_safe_and_there_after_a_restart(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path)
    notes = Notes(store)
    safe = asyncio.Event()
    notes.put("egress.x", "a~1~0.7", safe.set)
    assert notes.get("egress.x") == "a~1~0.7"
    await eventually_async(safe.is_set)
    notes.put("egress.x", "a~1~0.9")
    await store.close()
    store = SqliteStore.open(tmp_path)
    assert Notes(store).get("egress.x") == "a~1~0.9"
    assert Notes(store).get("egress.y") is None
    await store.close()


async def test_the_id_of_a_directory_is_made_once(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "a")
    own = Notes(store).own_id()
    await store.close()
    store = SqliteStore.open(tmp_path / "a")
    assert Notes(store).own_id() == own
    await store.close()
    other = SqliteStore.open(tmp_path / "b")
    assert Notes(other).own_id() != own
    await other.close()
