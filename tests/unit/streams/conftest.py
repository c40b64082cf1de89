"""Stores in a directory of their own, closed at the end of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.streams.sqlite_store import SqliteStore

OpenStore = Callable[..., SqliteStore]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the store of the test's directory; a store that the test has not closed is closed."""
    stores: list[SqliteStore] = []

    def open_one(data_dir: Path = tmp_path, **settings: object) -> SqliteStore:
        store = SqliteStore.open(data_dir, **settings)  # type: ignore[arg-type]
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        if not store.is_closed:
            await store.close()


@pytest.fixture
def quick_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep does not wait for a second of silence."""
    monkeypatch.setattr("bridge.streams.sqlite_writer.IDLE_S", 0.005)
