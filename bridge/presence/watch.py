"""Presences: all clients that the server knows, and what is told of their coming and going.

It is told by the broker once a turn, publishes what comes of it in batches of a turn (`$presence/{client_id}`), and has
the retained messages below that name: they are made from the states when someone asks. A client that is gone, session
and all, is remembered for `gone_s`.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from bridge.presence.device import Device
from bridge.presence.state import RESTARTED, Change, apply, presence_json, presence_topic
from broker.limit_hits import LimitHits
from broker.presence import CONNECTED, PRESENCE_PREFIX, REFUSED, ConnectionChange
from broker.topics.names import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bridge.presence.newest import NewestPresences
    from bridge.presence.state import Presence
    from bridge.presence.store import DeviceStore
    from broker.publish_run import PublishRun

log = logging.getLogger("headrace.presence")

BATCHES_WAITING = 64
"""A batch grows by this part of what waits, so that what waits cannot grow without end however many connect."""
GATHER_MS = 20
"""While more keeps happening a batch is told so long after the last one: one run, one commit and one frame to each
reader then stand for many changes. The first change after a pause is told at once."""
ROWS_AT_ONCE = 1_000
TOPIC_BYTES_MAX = 65_535
ALL_CLIENTS = ("#", "+", "+/#")


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """Bounds; see `[presence]` in the configuration."""

    gone_s: int = 86_400
    gone_devices_max: int = 100_000
    batch_changes_max: int = 200
    pending_bytes_max: int = 16 * 1024 * 1024
    server_events_max: int = 10


class OwnPublisher(Protocol):
    """The broker, as far as it is needed here."""

    def publish_own(
        self,
        rows: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        is_routed: bool = True,
        is_stored: bool = True,
    ) -> Sequence[PublishRun]:
        """Publish rows (topic name, payload) of the server itself; returns them as runs, in order."""


class Presences:
    """Implements `broker.presence.PresenceWatch`. The event loop's thread alone uses it."""

    def __init__(
        self,
        limits: PresenceLimits,
        clock: Callable[[], int],
        store: DeviceStore | None = None,
        on_refused: Callable[[ConnectionChange], None] = lambda _: None,
    ) -> None:
        self.device_by_client_id: dict[str, Device] = {}
        self.online = 0
        self.with_session = 0
        """Of those that are not online."""
        self.newest: NewestPresences | None = None
        """Keeps what the log has; None: the latest values of topics do, as of any topic."""
        self.limit_hits = LimitHits()
        self.forgotten = 0
        """Gone devices that were forgotten before their time, because of `gone_devices_max`."""
        self.changes = 0
        """Changes that were told."""
        self.not_stored = 0
        """Of them, those that no stream was given because its log was far behind."""
        self.not_published = 0
        """Changes of clients whose name makes no topic name, being too long."""
        self._limits = limits
        self._clock = clock
        """Epoch milliseconds."""
        self._store = store
        self._on_refused = on_refused
        self._publisher: OwnPublisher
        self._call_soon: Callable[[Callable[[], None]], object]
        self._call_later: Callable[[float, Callable[[], None]], object]
        self._pending_bytes: Callable[[], int] = lambda: 0
        self._has_session: Callable[[str], bool] = lambda _: False
        self._waiting: deque[Change | ConnectionChange] = deque()
        self._is_scheduled = False
        self._told_ms = 0
        """When a batch was told last."""
        self._gone: dict[str, int] = {}
        """When each of those that are gone is forgotten, epoch milliseconds; the first is forgotten first."""
        self._dirty: dict[str, Device | None] = {}
        """What the store has to be told; None: forget. While the disk refuses it holds no more than all devices that
        are known and those that the store has."""

    # Life

    def connect(
        self,
        publisher: OwnPublisher,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], object],
        pending_bytes: Callable[[], int],
    ) -> None:
        """Set who publishes, how to be called in a later round of the loop and after some seconds, and what waits for
        the log."""
        self._publisher = publisher
        self._call_soon = call_soon
        self._call_later = call_later
        self._pending_bytes = pending_bytes

    def load(self, has_session: Callable[[str], bool]) -> None:
        """Take what the store has. Those that were online when the server ended without a word are told offline.

        They are published by `tell_all`, before anything that happens after this; `has_session` is asked then which
        sessions have outlived the end.
        """
        self._has_session = has_session
        now_ms = self._clock()
        for device in self._store.load() if self._store is not None else ():
            presence = device.presence
            client_id = presence.client_id
            device.is_stored = True
            self.device_by_client_id[client_id] = device
            self.online += presence.online
            self.with_session += presence.session and not presence.online
            if not presence.online and not presence.session:
                self._gone[client_id] = presence.time_ms + 1000 * self._limits.gone_s
            if presence.online or presence.session:
                self._waiting.append(Change(RESTARTED, client_id, 0, now_ms, "", presence.session))
        self._bound_gone()

    def tell_all(self) -> None:
        """Tell all that is still to be told, at the start and at the end: nobody's messages have to pass between."""
        while self._waiting:
            self._take(ROWS_AT_ONCE)

    # broker.presence.PresenceWatch

    def changed(self, changes: Sequence[ConnectionChange]) -> None:
        """What happened in this turn. It is told at once, or with what happens in the next few milliseconds when
        something was told just now; of very much a batch, the rest in later rounds of the loop."""
        self._waiting.extend(changes)
        if self._is_scheduled:
            return
        passed_ms = self._clock() - self._told_ms
        if 0 <= passed_ms < GATHER_MS:  # less: the clock was set back
            self._is_scheduled = True
            self._call_later((GATHER_MS - passed_ms) / 1000, self.flush)
        else:
            self.flush()

    def catch_up(self) -> None:
        """For who asks for states: a batch of what waits is told now."""
        if self._waiting:
            self._take(self._limits.batch_changes_max)

    def retained(self, topic_filter: str) -> Iterator[tuple[str, bytes, int]]:
        """The newest presence of every client that the filter takes."""
        rest = topic_filter.removeprefix(PRESENCE_PREFIX)
        if rest in ALL_CLIENTS:
            devices = list(self.device_by_client_id.values())
        else:
            device = self.device_by_client_id.get(unquote(rest.removesuffix("/#")))
            devices = [device] if device is not None else []
        for device in devices:
            presence = device.presence
            topic_name = presence_topic(presence.client_id)
            if matches(topic_filter, topic_name) and len(topic_name.encode()) <= TOPIC_BYTES_MAX:
                yield topic_name, presence_json(presence), presence.time_ms

    # Changes

    def flush(self) -> None:
        """Tell a batch of what waits."""
        self._is_scheduled = False
        self._take(self._limits.batch_changes_max + len(self._waiting) // BATCHES_WAITING)
        self._told_ms = self._clock()
        if self._waiting:
            self._is_scheduled = True
            self._call_soon(self.flush)

    def _take(self, most: int) -> None:
        rows: list[tuple[str, bytes]] = []
        told: list[Presence] = []
        waiting = self._waiting
        for _ in range(min(most, len(waiting))):
            change = waiting.popleft()
            presence = self._apply(change)
            if presence is None:
                continue
            topic_name = presence_topic(presence.client_id)
            if len(topic_name) > TOPIC_BYTES_MAX // 4 and len(topic_name.encode()) > TOPIC_BYTES_MAX:
                self.not_published += 1
                continue
            rows.append((topic_name, presence_json(presence)))
            told.append(presence)
        self._save()
        if rows:
            self.changes += len(rows)
            is_stored = self._pending_bytes() <= self._limits.pending_bytes_max
            if not is_stored:
                self.not_stored += len(rows)
                self.limit_hits.hit("presence.pending_bytes_max")
            runs = self._publisher.publish_own(rows, retain=True, is_stored=is_stored)
            if is_stored and self.newest is not None:
                self.newest.told(runs, told)

    def _apply(self, change: Change | ConnectionChange) -> Presence | None:
        """The presence to tell; None: nothing has changed."""
        connection = None
        if isinstance(change, ConnectionChange):
            if change.kind == REFUSED:
                self._on_refused(change)
                return None
            connection = change.connection
        else:
            change = change._replace(has_session=change.has_session and self._has_session(change.client_id))
        client_id = change.client_id
        device = self.device_by_client_id.get(client_id)
        before = device.presence if device is not None else None
        presence, events = apply(before, change)
        if not events or presence is None:
            return None
        if device is None:
            device = self.device_by_client_id[client_id] = Device(presence)
            device.is_stored = client_id in self._dirty  # the store has still to forget it
        else:
            assert before is not None
            self.online -= before.online
            self.with_session -= before.session and not before.online
            device.presence = presence
            if before.online != presence.online:
                device.since_ms = presence.time_ms
        self.online += presence.online
        self.with_session += presence.session and not presence.online
        self._dirty[client_id] = device
        if change.kind == CONNECTED and connection is not None:
            device.connected(connection)
            self._gone.pop(client_id, None)
        elif not presence.online:
            device.disconnected()
            if not presence.session:
                self._gone[client_id] = presence.time_ms + 1000 * self._limits.gone_s
                self._bound_gone()
        return presence

    # What is forgotten and what is kept

    def tick(self) -> None:
        """Once a second: forget those that have been gone for long enough."""
        now_ms = self._clock()
        while self._gone:
            client_id, due_ms = next(iter(self._gone.items()))
            if due_ms > now_ms:
                break
            self._forget(client_id)
        self._save()
        if self._store is not None:
            self._store.flush()

    def _bound_gone(self) -> None:
        while len(self._gone) > self._limits.gone_devices_max:
            self._forget(next(iter(self._gone)))
            self.forgotten += 1
            self.limit_hits.hit("presence.gone_devices_max")

    def _forget(self, client_id: str) -> None:
        del self._gone[client_id]
        device = self.device_by_client_id.pop(client_id)
        if device.is_stored:
            self._dirty[client_id] = None
        else:
            self._dirty.pop(client_id, None)

    def _save(self) -> None:
        """Give the store what has changed, to be written with the records of it; not while the disk refuses."""
        if not self._dirty or (self._store is not None and self._store.failure is not None):
            return
        dirty, self._dirty = self._dirty, {}
        if self._store is None:
            return
        for device in dirty.values():
            if device is not None:
                device.is_stored = True
        self._store.save(
            [device.row() for device in dirty.values() if device is not None],
            [client_id for client_id, device in dirty.items() if device is None],
        )

    @property
    def gone(self) -> int:
        """Devices without connection and session that are remembered."""
        return len(self._gone)

    @property
    def waiting(self) -> int:
        """Changes that are still to be told."""
        return len(self._waiting)
