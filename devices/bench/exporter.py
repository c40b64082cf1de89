"""A process that exports a whole stream over HTTP again and again, as a disturbance for others.

Run as `python -m devices.bench.exporter PORT FORMAT`; prints a line when the first byte has come, and its totals when
it is terminated.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

from devices.bench.peers import STREAM
from devices.bench.wire import PeerFailed

READ_BYTES = 256 * 1024
ANSWER_TIMEOUT_S = 20.0


class _Terminated(Exception):
    pass


@contextlib.contextmanager
def exporting(http_port: int, form: str = "ndjson") -> Iterator[None]:
    """An export of the bench's stream that runs all the while; the context begins when its first bytes have come.

    Raises: PeerFailed when no export runs, or when it ended early.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "devices.bench.exporter", str(http_port), form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"exporting":
            raise PeerFailed(f"the export did not begin: {process.communicate()[1].decode(errors='replace')[-500:]}")
        yield
        if process.poll() is not None:
            raise PeerFailed(f"the export ended early: {process.communicate()[1].decode(errors='replace')[-500:]}")
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def export_path(form: str) -> str:
    """Where all of the bench's stream is to be had in a format."""
    return f"/api/v1/streams/{STREAM}/records?format={form}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def main(port: int, form: str) -> None:
    """Export until terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    total_bytes = exports = 0
    with contextlib.suppress(_Terminated):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.request("GET", export_path(form))
                response = connection.getresponse()
                if response.status != 200:
                    raise SystemExit(f"{response.status} {response.read(500)!r}")
                while piece := response.read1(READ_BYTES):
                    if not total_bytes:
                        print("exporting", flush=True)
                    total_bytes += len(piece)
            exports += 1
    print(f"{exports} exports ended, {total_bytes} bytes", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
