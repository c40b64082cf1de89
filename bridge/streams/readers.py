"""Readers: the event loop's end of the processes that read stored history.

A request is a small pickled tuple behind its length, and so is an answer; both ends are this program. A process that
dies is started again, and what it was asked is asked once more. It is nice to the broker, and ends when its standard
input closes, so that no reader outlives a server that was killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import cast

from bridge.history.scan import Answer, AnswerT, Question
from bridge.streams.log import StreamLogError

REQUESTS_MAX = 64
"""Requests under way at once in one process; later ones wait for their turn."""
STOP_S = 2.0
LENGTH = Struct("<I")

logger = logging.getLogger(__name__)


class ReaderGone(StreamLogError):
    """The reader process died with the request; asking again starts another."""

    retriable = True


class ReadFailed(StreamLogError):
    """The reader could not answer; its text says why."""


class Readers:
    """One or two reader processes, started when first needed."""

    def __init__(self, path: Path, processes: int) -> None:
        self._last_file = 0
        self._readers = [ReaderProcess("bridge.history.reader_process", str(path)) for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [reader.pid for reader in self._readers if reader.pid is not None]

    async def start(self) -> None:
        """Start the processes now, rather than with the first request."""
        await asyncio.gather(*[reader.start() for reader in self._readers])

    async def scan(self, stream_id: int, request: Question[AnswerT]) -> AnswerT:
        """Raises: ReaderGone, ReadFailed"""
        result = await self._ask(("scan", stream_id, request))
        assert isinstance(result, Answer)
        return cast("AnswerT", result)

    async def offset_at(self, stream_id: int, time_ms: int) -> int:
        """Raises: ReaderGone, ReadFailed"""
        result = await self._ask(("offset_at", stream_id, time_ms))
        assert isinstance(result, int)
        return result

    async def _ask(self, question: tuple[object, ...]) -> object:
        for is_last_try in (False, True):
            reader = min(self._readers, key=lambda reader: reader.load)
            try:
                return await reader.ask(question)
            except ReaderGone:
                if is_last_try:
                    raise
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def parquet(self) -> AsyncIterator[ParquetPipe]:
        """A Parquet file that one of the processes writes. Raises: ReaderGone, ReadFailed"""
        self._last_file += 1
        pipe = ParquetPipe(min(self._readers, key=lambda reader: reader.load), self._last_file)
        await pipe.ask("begin")
        try:
            yield pipe
        finally:
            with suppress(StreamLogError):  # the process has ended, and the file with it
                await pipe.ask("drop")

    async def close(self) -> None:
        """End the processes; requests under way fail."""
        await asyncio.gather(*[reader.close() for reader in self._readers])


class ParquetPipe:
    """Columns in, a file's bytes out; see `bridge.history.parquet`."""

    def __init__(self, process: ReaderProcess, number: int) -> None:
        self._process = process
        self._number = number

    async def add(self, columns: bytes) -> bytes:
        """Add records (`Columns.to_bytes`); returns what there is to send. Raises: ReaderGone, ReadFailed"""
        return await self.ask("add", columns)

    async def finish(self) -> bytes:
        """The end of the file. Raises: ReaderGone, ReadFailed"""
        return await self.ask("finish")

    async def ask(self, step: str, data: bytes = b"") -> bytes:
        """One step of the file. Raises: ReaderGone, ReadFailed"""
        result = await self._process.ask((f"parquet_{step}", self._number, data))
        assert isinstance(result, bytes)
        return result


class ReaderProcess:
    """One process and the requests it has."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.load = 0
        self._command = (sys.executable, "-P", "-m", module, *arguments)
        self._process: Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._turns = asyncio.Semaphore(REQUESTS_MAX)
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._last_number = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> Process:
        async with self._starting:
            if self._is_closed:
                raise ReadFailed("the store is closed")
            if self._process is None:
                # The child imports what this process would, wherever it was started.
                environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=PIPE,
                    stdout=PIPE,
                    env=environment,
                )
                self._listening = asyncio.create_task(self._listen(self._process), name="history-reader")
            return self._process

    async def ask(self, question: tuple[object, ...]) -> object:
        self.load += 1
        try:
            async with self._turns:
                return await self._ask(await self.start(), question)
        finally:
            self.load -= 1

    async def _ask(self, process: Process, question: tuple[object, ...]) -> object:
        self._last_number += 1
        number = self._last_number
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = pickle.dumps((number, *question), protocol=pickle.HIGHEST_PROTOCOL)
        assert process.stdin is not None
        try:
            process.stdin.write(LENGTH.pack(len(message)) + message)
            return await answer
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ReaderGone("the reader process died") from error
        finally:
            self._answers.pop(number, None)

    async def _listen(self, process: Process) -> None:
        """Hand out answers until the process ends."""
        assert process.stdout is not None
        read = process.stdout.readexactly
        try:
            while True:
                (size,) = LENGTH.unpack(await read(LENGTH.size))
                number, is_error, result = pickle.loads(await read(size))
                answer = self._answers.get(number)
                if answer is None or answer.done():
                    continue  # whoever asked has gone
                if is_error:
                    answer.set_exception(ReadFailed(result))
                else:
                    answer.set_result(result)
        except asyncio.IncompleteReadError:
            logger.debug("the pipe of the history reader has ended")  # who was waiting is told below
        finally:
            self._process = None
            code = await process.wait()
            if not self._is_closed:
                logger.warning("the history reader (process %d) ended with %d", process.pid, code)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ReaderGone("the reader process died"))

    async def close(self) -> None:
        self._is_closed = True
        async with self._starting:  # a process being started is waited for
            process, listening = self._process, self._listening
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
        if listening is None:
            return
        _, running = await asyncio.wait([listening], timeout=STOP_S)
        if running and process is not None:
            process.kill()
            await asyncio.wait([listening])
