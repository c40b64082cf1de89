"""Exports: a range of records as a file, streamed in pieces of bounded size, and how many there may be at once."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from bridge.encoding import CSV_HEAD

if TYPE_CHECKING:
    from bridge.history.search import RecordSearch
    from bridge.streams.readers import Readers

ExportForm = Literal["ndjson", "csv", "parquet"]

COLUMNS_BYTES = 2 * 1024 * 1024
GZIP_LEVEL = 1
"""Three times the speed of the usual 6, and text is small enough."""
GZIP_WINDOW = 31  # zlib's way to say: with gzip's header and trailer


class TooManyExports(Exception):
    """`exports_max` is reached."""


class Exports:
    """The exports of one node."""

    def __init__(self, exports_max: int) -> None:
        self.count = 0
        self._exports_max = exports_max

    def begin(self) -> None:
        """One more; `end` has to follow. Raises: TooManyExports"""
        if self.count >= self._exports_max:
            raise TooManyExports(f"{self.count} exports are under way")
        self.count += 1

    def end(self) -> None:
        """One less."""
        self.count -= 1


async def export(search: RecordSearch, form: ExportForm, readers: Readers) -> AsyncGenerator[bytes]:
    """The file, piece by piece.

    Raises: StreamLogError, after which the file must not look whole.
    """
    if form == "parquet":
        async with readers.parquet() as file, aclosing(search.pieces("columns", COLUMNS_BYTES)) as pieces:
            async for columns in pieces:
                if data := await file.add(columns):
                    yield data
            yield await file.finish()
        return
    if form == "csv":
        yield CSV_HEAD
    async with aclosing(search.pieces("csv" if form == "csv" else "json")) as pieces:
        async for data in pieces:
            yield data


async def gzipped(file: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same compressed, in a thread: zlib lets go of the interpreter's lock while it works."""
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)
    async with aclosing(file):
        async for piece in file:
            if data := await asyncio.to_thread(compressor.compress, piece):
                yield data
    yield await asyncio.to_thread(compressor.flush)


def gzip(body: bytes) -> bytes:
    """A whole body compressed; for a thread when it is long."""
    return zlib.compress(body, GZIP_LEVEL, GZIP_WINDOW)
