"""The process that reads history from Kafka: `python -m bridge.history.kafka_reader_process FILE`.

It takes requests on standard input and answers on standard output (`bridge.streams.kafka.readers` is the other end),
and ends when its input closes. Requests are worked on side by side; each waits for Kafka most of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import sqlite3
import sys
import traceback
from pathlib import Path
from typing import Any

import uvloop

from bridge.history.kafka_reader import KafkaReader
from bridge.history.kafka_scan import AnotherEpoch
from bridge.streams.kafka.cluster import KafkaFailure
from bridge.streams.kafka.readers import Unreachable
from bridge.streams.kafka.settings import KafkaSettings
from bridge.streams.log import StreamLogError
from bridge.streams.readers import LENGTH

NICENESS = 5
REQUESTS_AT_ONCE = 8


class Server:
    """Requests in, answers out."""

    def __init__(self, store_path: Path, writer: asyncio.StreamWriter) -> None:
        self._store_path = store_path
        self._writer = writer
        self._reader: KafkaReader | None = None
        self._settings: KafkaSettings | None = None
        self._turns = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, requests: asyncio.StreamReader) -> None:
        """Serve until the input ends."""
        try:
            while True:
                (size,) = LENGTH.unpack(await requests.readexactly(LENGTH.size))
                number, settings, kind, *arguments = pickle.loads(await requests.readexactly(size))
                if self._reader is None or settings != self._settings:
                    self._settings, self._reader = settings, KafkaReader(settings, self._store_path)
                task = asyncio.create_task(self._answer(number, kind, arguments))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except asyncio.IncompleteReadError:
            logging.getLogger(__name__).debug("the server has closed the pipe")
        for task in self._tasks:
            task.cancel()
        if self._reader is not None:
            await self._reader.close()

    async def _answer(self, number: int, kind: str, arguments: list[Any]) -> None:
        assert self._reader is not None
        reader = self._reader
        is_error, result = False, None
        async with self._turns:
            try:
                result = await getattr(reader, kind)(*arguments)
            except AnotherEpoch:
                result = Unreachable("the topic is another one by now")
            except KafkaFailure as error:
                await reader.forget_client()
                result = Unreachable(f"Kafka does not answer ({error or type(error).__name__})")
            except (StreamLogError, sqlite3.Error) as error:
                is_error, result = True, f"history cannot be read: {error}"
            except Exception as error:  # a bug, or a damaged record: who asked is told, the others' scans go on
                traceback.print_exc()
                is_error, result = True, f"history cannot be read: {error!r}"
        message = pickle.dumps((number, is_error, result), protocol=pickle.HIGHEST_PROTOCOL)
        # The server was killed: nobody waits for the answer. uvloop says so by a RuntimeError.
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._writer.writelines((LENGTH.pack(len(message)), message))
            await self._writer.drain()


async def serve(store_path: Path) -> None:
    """Standard input and output as streams."""
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop=loop), sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    await Server(store_path, writer).run(requests)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; it closes our input when it is done
    os.nice(NICENESS)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it is told to who asks
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(Path(sys.argv[1])))
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)  # the server has gone


if __name__ == "__main__":
    main()
