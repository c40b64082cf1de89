"""The process that reads stored history: `python -m bridge.history.reader_process FILE`.

It takes requests on standard input and answers on standard output (`bridge.streams.readers` is the other end). Scans
take turns, a piece of work each, so that a short one never waits for a long export. It ends when its input closes.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sqlite3
import sys
import traceback
from collections import deque
from collections.abc import Generator
from pathlib import Path

from bridge.history.columns import Columns
from bridge.history.parquet import ParquetFile
from bridge.history.scan import Answer
from bridge.history.stream_reader import StreamReader
from bridge.streams.log import StreamLogError
from bridge.streams.readers import LENGTH

NICENESS = 5
READ_BYTES = 65_536

Work = Generator[None, None, Answer | int | bytes]


class ParquetFiles:
    """Files in the making, by the numbers that the server gave them; it bounds how many there are."""

    def __init__(self) -> None:
        self._file_by_number: dict[int, ParquetFile] = {}

    def work(self, kind: str, number: int, data: bytes) -> Generator[None, None, bytes]:
        """One step of a file, as a piece of work: `parquet_begin`, `parquet_add`, `parquet_finish`, `parquet_drop`."""
        yield
        if kind == "parquet_begin":
            self._file_by_number[number] = ParquetFile()
            return b""
        if kind == "parquet_drop":
            self._file_by_number.pop(number, None)
            return b""
        file = self._file_by_number.get(number)
        if file is None:
            raise StreamLogError("the process that wrote this file has ended")
        if kind == "parquet_add":
            return file.add(Columns.from_bytes(data))
        del self._file_by_number[number]
        return file.finish()


class RequestLoop:
    """Requests in, pieces of work in turn, answers out."""

    def __init__(self, reader: StreamReader, requests: int, answers: int) -> None:
        self._reader = reader
        self._requests = requests
        self._answers = answers
        self._buffer = bytearray()
        self._work: deque[tuple[int, Work]] = deque()
        self._files = ParquetFiles()

    def run(self) -> None:
        """Serve until the input ends."""
        while True:
            timeout = 0 if self._work else None
            if select.select([self._requests], [], [], timeout)[0]:
                data = os.read(self._requests, READ_BYTES)
                if not data:
                    return
                self._receive(data)
            if self._work:
                number, work = self._work.popleft()
                self._advance(number, work)

    def _receive(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            end = LENGTH.size + size
            if len(self._buffer) < end:
                return
            number, kind, subject, argument = pickle.loads(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            if kind == "scan":
                self._work.append((number, self._reader.scan(subject, argument)))
            elif kind == "offset_at":
                self._work.append((number, self._reader.find(subject, argument)))
            else:
                self._work.append((number, self._files.work(kind, subject, argument)))

    def _advance(self, number: int, work: Work) -> None:
        try:
            next(work)
        except StopIteration as end:
            self._answer(number, False, end.value)
        except (StreamLogError, sqlite3.Error) as error:
            self._answer(number, True, f"history cannot be read: {error}")
        except Exception as error:  # a bug, or a damaged record: who asked is told, the others' scans go on
            traceback.print_exc()
            self._answer(number, True, f"history cannot be read: {error!r}")
        else:
            self._work.append((number, work))

    def _answer(self, number: int, is_error: bool, result: object) -> None:
        message = pickle.dumps((number, is_error, result), protocol=pickle.HIGHEST_PROTOCOL)
        for part in (LENGTH.pack(len(message)), message):  # a piece of an export is long enough not to be copied again
            view = memoryview(part)
            while view:
                view = view[os.write(self._answers, view) :]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; it closes our input when it is done
    os.nice(NICENESS)  # acknowledgements go before exports
    reader = StreamReader(Path(sys.argv[1]))
    try:
        RequestLoop(reader, sys.stdin.fileno(), sys.stdout.fileno()).run()
    except BrokenPipeError:
        sys.exit(0)  # the server has gone
    finally:
        reader.close()


if __name__ == "__main__":
    main()
