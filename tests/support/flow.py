"""Flow: devices that publish numbered messages all the while, and what must hold of them afterwards.

Each topic's payloads are 0, 1, 2, … in order, at QoS 1. Nothing is sent twice: what was not acknowledged when a
connection broke may be stored or not, but never twice, and never out of order.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support import mqtt_wire as wire
from tests.support.mqtt_client import ConnectionEnded, RawClient
from tests.support.server import ServerProcess

WINDOW = 200
"""Unacknowledged at a time: below the Receive Maximum, and enough that something is always under way."""


class Flow:
    """One connection that publishes to several topics in turn, and comes back when it breaks."""

    def __init__(
        self,
        server: ServerProcess,
        prefix: str,
        topics: int = 6,
        rate: float = 1_000.0,
        padding: int = 0,
        port: int | None = None,
    ) -> None:
        """`port`: where to connect, when that is not the server's own (a proxy's)."""
        self.topics = [f"{prefix}/{number}" for number in range(topics)]
        self.sent = dict.fromkeys(self.topics, 0)
        self.acknowledged: dict[str, set[int]] = {topic: set() for topic in self.topics}
        self.refused = 0
        self.breaks = 0
        self.longest_wait_s = 0.0
        self._server = server
        self._port = port
        self._may_send = threading.Event()
        self._may_send.set()
        self._turn = 0
        self._prefix = prefix
        self._rate = rate
        self._padding = b" " * padding
        self._stopped = threading.Event()
        self._waiting: dict[int, tuple[str, int, float]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def count(self) -> int:
        """How many were acknowledged."""
        return sum(len(numbers) for numbers in self.acknowledged.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def pause(self) -> None:
        """Send nothing until `go_on`; acknowledgements are still taken."""
        self._may_send.clear()

    def go_on(self) -> None:
        """Send again."""
        self._may_send.set()

    @property
    def unacknowledged(self) -> int:
        """How many are under way."""
        return len(self._waiting)

    def stop(self) -> None:
        """Send no more, and take the acknowledgements that are due (for a minute at most)."""
        self._stopped.set()
        self._thread.join(75)
        assert not self._thread.is_alive(), f"{len(self._waiting)} publishes are not acknowledged"

    def _run(self) -> None:
        while not self._stopped.is_set() or self._waiting:
            client = self._connect()
            if client is None:
                if self._stopped.is_set():
                    return
                self._stopped.wait(0.05)
                continue
            try:
                self._publish(client)
                return
            except (OSError, ConnectionEnded):
                self.breaks += 1
                self._waiting.clear()
            finally:
                client.close()

    def _connect(self) -> RawClient | None:
        """None: nobody answers at the moment."""
        try:
            client = RawClient(self._port or self._server.mqtt_port, wire.V5, timeout_s=60)
        except OSError:
            return None
        try:
            client.connect(f"{self._prefix.replace('/', '-')}-flow")
        except (OSError, ConnectionEnded, AssertionError):
            client.close()
            return None
        return client

    def _publish(self, client: RawClient) -> None:
        started, total = time.monotonic(), 0
        while not self._stopped.is_set():
            if not self._may_send.is_set():
                self._take(client, 0.05)
                started, total = time.monotonic(), 0
                continue
            due = int((time.monotonic() - started) * self._rate) - total
            room = WINDOW - len(self._waiting)
            for _ in range(min(due, room)):
                topic = self.topics[self._turn % len(self.topics)]
                number = self.sent[topic]
                packet_id = client.publish(topic, b"%d%b" % (number, self._padding), 1)
                self.sent[topic] = number + 1
                self._turn += 1
                self._waiting[packet_id] = (topic, number, time.monotonic())
                total += 1
            if room <= 0:
                started, total = time.monotonic(), 0  # what could not be sent in time is not made up for
            self._take(client, 0.002)
        deadline = time.monotonic() + 60
        while self._waiting and time.monotonic() < deadline:
            self._take(client, 1)
        client.disconnect()

    def _take(self, client: RawClient, timeout_s: float) -> None:
        try:
            while True:
                packet = client.next_packet(timeout_s)
                if packet.packet_type == wire.DISCONNECT:
                    raise ConnectionEnded(f"the server says {packet.reason_code:#x}")
                topic, number, sent_at = self._waiting.pop(packet.packet_id)
                self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - sent_at)
                if packet.reason_code & 0x80:
                    self.refused += 1
                else:
                    self.acknowledged[topic].add(number)
                if not self._waiting:
                    return
        except TimeoutError:
            return

    # What must hold

    def faults(self, rows: Iterable[tuple[str, int]], where: str) -> list[str]:
        """What is wrong with (topic, number) rows that should be all of this flow, in order for each topic."""
        by_topic: dict[str, list[int]] = {topic: [] for topic in self.topics}
        for topic, number in rows:
            if topic in by_topic:
                by_topic[topic].append(number)
        faults = []
        for topic, numbers in by_topic.items():
            missing = self.acknowledged[topic] - set(numbers)
            if missing:
                faults.append(f"{where}: {topic} lacks {len(missing)} acknowledged, {sorted(missing)[:5]}…")
            twice = sorted(number for number, count in Counter(numbers).items() if count > 1)
            if twice:
                faults.append(f"{where}: {topic} has {len(twice)} twice, {twice[:5]}…")
            if numbers != sorted(numbers):
                index = next(i for i in range(1, len(numbers)) if numbers[i] < numbers[i - 1])
                faults.append(f"{where}: {topic} is out of order: {numbers[max(0, index - 2) : index + 2]}")
        return faults


def rows_of_events(messages: Sequence[Mapping[str, object]]) -> list[tuple[str, int]]:
    """(topic, number) of SSE messages or records."""
    return [(str(message["topic"]), int(str(message["payload"]))) for message in messages]
