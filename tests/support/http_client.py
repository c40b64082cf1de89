"""What tests read from the HTTP side: records, metrics, and an SSE stream that resumes like a browser does."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import httpx

from tests.support.conditions import eventually

TIMEOUT_S = 20.0


def records(http_url: str, stream: str = "default", **query: str) -> list[dict[str, Any]]:
    """All records of a stream that match `query`, oldest first (as NDJSON, which has no page limit)."""
    answer = httpx.get(
        f"{http_url}/api/v1/streams/{stream}/records",
        params={"format": "ndjson", "order": "asc", **query},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def metrics(http_url: str) -> dict[str, float]:
    """`/metrics` as a dict from `name{labels}` to value."""
    answer = httpx.get(f"{http_url}/metrics", timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    found = {}
    for line in answer.text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


@dataclass
class Event:
    """A dispatched event, or one of `id:` alone (`name` is then empty)."""

    name: str = ""
    data: str = ""
    event_id: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """Its data."""
        parsed: dict[str, Any] = json.loads(self.data)
        return parsed


@dataclass
class SseReader:
    """Follows `/api/v1/events` in a thread and comes back with `Last-Event-ID` whenever the stream ends."""

    http_url: str
    query: list[tuple[str, str]]
    last_event_id: str = ""
    events: list[Event] = field(default_factory=list)
    connections: int = 0
    statuses: list[int] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    failure: str = ""
    _open: http.client.HTTPConnection | None = None

    def start(self) -> Self:
        """Begin, and wait for the first answer."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(lambda: bool(self.statuses), TIMEOUT_S, "an answer to the events request")
        return self

    def __str__(self) -> str:
        return (
            f"{len(self.events)} events, cursor {self.last_event_id!r}, {self.connections} connections, "
            f"answers {self.statuses[-3:]}, last failure {self.failure}, last events {self.events[-2:]}"
        )

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Data of the `message` events so far."""
        return [event.json for event in list(self.events) if event.name == "message"]

    def stop(self) -> None:
        """Disconnect for good."""
        self._stopped.set()
        self._disconnect()
        if self._thread is not None:
            self._thread.join(10)

    def _disconnect(self) -> None:
        opened = self._open
        if opened is not None and opened.sock is not None:
            with contextlib.suppress(OSError):
                opened.sock.shutdown(2)

    def take(self, event: Event) -> None:
        """An event has come."""
        self.events.append(event)

    def is_wanted(self, status: int) -> bool:
        """Whether to ask again after an answer that is no stream of events."""
        return False

    def before_connecting(self) -> None:
        """Called before each connection."""

    def _run(self) -> None:
        address = urlsplit(self.http_url)
        while not self._stopped.is_set():
            self.before_connecting()
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
            self._open = connection
            try:
                headers = {"Accept": "text/event-stream"}
                if self.last_event_id:
                    headers["Last-Event-ID"] = self.last_event_id
                connection.connect()
                if connection.sock.getsockname() == connection.sock.getpeername():
                    # Nobody listened, and TCP connected the socket to itself (RFC 9293 §3.5, simultaneous open).
                    raise ConnectionRefusedError
                connection.request("GET", "/api/v1/events?" + urlencode(self.query), headers=headers)
                answer = connection.getresponse()
                self.connections += 1
                self.statuses.append(answer.status)
                if answer.status != 200:
                    if not self.is_wanted(answer.status):
                        return
                    self._stopped.wait(0.2)
                    continue
                for event in parse_events(answer):
                    if event.event_id:
                        self.last_event_id = event.event_id
                    self.take(event)
            except (OSError, http.client.HTTPException) as error:
                self.failure = repr(error)
                self._stopped.wait(0.02)
            finally:
                connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def parse_events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[Event]:
    """Events as the HTML standard says (§9.2.6); an event cut off by the end is none."""
    event = Event()
    has_id = False
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        if not line:
            if event.data or has_id:
                yield event
            event = Event()
            has_id = False
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            event.data += ("\n" if event.data else "") + value
            event.name = event.name or "message"
        elif name == "event":
            event.name = value
        elif name == "id":
            event.event_id = value
            has_id = True
