"""The contract of `StreamLog`, for each embedded storage; Kafka's is in tests/kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.streams.memory_log import MemoryLog
from bridge.streams.sqlite_store import SqliteStore
from tests.support.log_contract import Committed, EmbeddedLogContract, FakeClock, Opened, RunMaker


class TestMemoryLog(EmbeddedLogContract):
    @pytest.fixture
    def opened(self) -> Opened:
        return self.open(None)

    @pytest.fixture
    def open_aged(self) -> Opened:
        return self.open(1_000)

    def open(self, age_ms_max: int | None) -> Opened:
        clock = FakeClock()
        log = MemoryLog("telemetry", age_ms_max=age_ms_max, node_run="n1", clock=clock)
        return Opened(log, RunMaker(log), Committed(log), clock)


class TestSqliteLog(EmbeddedLogContract):
    @pytest.fixture
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        async for opened in self.open(tmp_path, None):
            yield opened

    @pytest.fixture
    async def open_aged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opened]:
        monkeypatch.setattr("bridge.streams.sqlite_writer.IDLE_S", 0.01)
        async for opened in self.open(tmp_path, 1_000):
            yield opened

    async def open(self, data_dir: Path, age_ms_max: int | None) -> AsyncIterator[Opened]:
        clock = FakeClock()
        store = SqliteStore.open(data_dir, clock=clock)
        log = store.open_log("telemetry", retention_age_ms=age_ms_max)
        yield Opened(log, RunMaker(log), Committed(log), clock)
        await store.close()
