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
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import cast

from bridge.ending import end
from bridge.history.scan import Answer, AnswerT, Question
from bridge.streams.log import StreamLogError

PART_RECORDS = 250_000
"""A question about fewer records is not divided: it is answered before anybody notices."""
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
    """The processes that read one store: the first for everything, the others for parts of what can be divided.

    The others are started by the first question that they could have helped with, and help with the next.
    """

    def __init__(self, path: Path, processes: int) -> None:
        self.part_records = PART_RECORDS
        self.ready = min(1, processes)
        """How many processes a question is divided among."""
        self._starting: asyncio.Task[None] | None = None
        self._last_file = 0
        self._readers = [ReaderProcess("bridge.history.reader_process", str(path)) for _ in range(processes)]

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [reader.pid for reader in self._readers if reader.pid is not None]

    async def start(self) -> None:
        """Start the first process now, rather than with the first request."""
        for reader in self._readers[:1]:
            await reader.start()

    async def scan(self, stream_id: int, request: Question[AnswerT], process: int = 0) -> AnswerT:
        """Raises: ReaderGone, ReadFailed"""
        result = await self._ask(("scan", stream_id, request), process)
        assert isinstance(result, Answer)
        return cast("AnswerT", result)

    async def ask(self, stream_id: int, request: Question[AnswerT]) -> Sequence[AnswerT]:
        """As `scan`, by all processes where the question can be divided: an answer for each part, in order.

        Raises: ReaderGone, ReadFailed
        """
        low, high = request.start, request.end
        if not request.is_divisible or high - low < 2 * self.part_records:
            return [await self.scan(stream_id, request)]
        if request.from_ms is not None:
            low = max(low, await self.offset_at(stream_id, request.from_ms))
        if request.until_ms is not None:
            high = min(high, await self.offset_at(stream_id, request.until_ms))
        parts = max(1, min(len(self._readers), (high - low) // self.part_records))
        if parts > self.ready:
            parts = self.ready
            if self._starting is None:
                self._starting = asyncio.create_task(self._start_others(stream_id), name="history-readers")
        bounds = [request.start, *[low + (high - low) * part // parts for part in range(1, parts)], request.end]
        asked = [replace(request, start=first, end=last) for first, last in pairwise(bounds)]
        return await asyncio.gather(*[self.scan(stream_id, part, number) for number, part in enumerate(asked)])

    async def _start_others(self, stream_id: int) -> None:
        """One is ready when it has answered: until it has imported everything, a part would wait for it."""
        try:
            for process in range(1, len(self._readers)):
                await self._ask(("offset_at", stream_id, 0), process)
            self.ready = len(self._readers)
        except StreamLogError as error:
            logger.warning("another history reader could not be started: %s", error)
        finally:
            self._starting = None

    async def offset_at(self, stream_id: int, time_ms: int) -> int:
        """Raises: ReaderGone, ReadFailed"""
        result = await self._ask(("offset_at", stream_id, time_ms))
        assert isinstance(result, int)
        return result

    async def _ask(self, question: tuple[object, ...], process: int = 0) -> object:
        reader = self._readers[process]
        try:
            return await reader.ask(question)
        except ReaderGone:
            return await reader.ask(question)  # of another process

    @asynccontextmanager
    async def parquet(self) -> AsyncIterator[ParquetPipe]:
        """A Parquet file that one of the processes writes. Raises: ReaderGone, ReadFailed"""
        self._last_file += 1
        pipe = ParquetPipe(self._readers[0], self._last_file)
        await pipe.ask("begin")
        try:
            yield pipe
        finally:
            with suppress(StreamLogError):  # the process has ended, and the file with it
                await pipe.ask("drop")

    async def close(self) -> None:
        """End the processes; requests under way fail."""
        await end([self._starting])
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
                raise ReaderGone("the store is closed")  # a live reader may still ask; it is closed in a moment
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
        async with self._turns:
            return await self._ask(await self.start(), question)

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
        except asyncio.CancelledError:  # the loop ends without having closed it: the process is not waited for
            with suppress(ProcessLookupError):
                process.kill()
            raise
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
