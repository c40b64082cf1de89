"""The newest stored record of each client's presence, as the latest values have it of other topics.

Everything in it but its place follows from the state that it told, which is kept anyway: so a device keeps that place,
and the record is made when someone asks. As an entry of its own it would take more than all else of an idle client.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from bridge.live.entries import INTERVAL_WEIGHT, Entry
from bridge.presence.state import presence_json, presence_topic
from bridge.records import RecordRun, Topic
from broker.codec.constants import LEVEL_5
from broker.codec.encode import encode_publish
from broker.codec.packets import Publish
from broker.presence import SERVER_CLIENT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.presence.device import Device
    from bridge.presence.state import Presence
    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun


class StoredPresence(NamedTuple):
    """A presence with the place of its record, as a `Device` has them: made when someone asks."""

    presence: Presence
    offset: int
    number: int
    """In `mqtt.id`."""
    time_ms: int
    """Epoch milliseconds, of the record."""
    interval_ms: float
    """Usual time between two of the client's; 0: not known."""


class NewestPresences:
    """Implements `bridge.live.latest.OwnValues` for what this run of the server has told into one embedded log."""

    def __init__(self, device_by_client_id: Mapping[str, Device], log: StreamLog, node_run: str) -> None:
        self.log = log
        self._devices = device_by_client_id
        self._node_run = node_run
        self._told: deque[tuple[PublishRun, Sequence[Presence]]] = deque()
        """On their way to the log, in order; it fails with few of them."""
        self._open: list[tuple[PublishRun, Sequence[Presence]]] = []
        """Committed since the latest values closed a window."""
        self._saved_offset = 0
        """What was stored from here on has still to be saved."""

    def told(self, runs: Sequence[PublishRun], presences: Sequence[Presence]) -> None:
        """Presences that were published as the rows of these runs."""
        row = 0
        for run in runs:
            if run.stream is self.log and self.log.failure is None:  # one that fails does not take them
                self._told.append((run, presences[row : row + len(run)]))
            row += len(run)

    # bridge.live.latest.OwnValues

    def committed(self, runs: Sequence[PublishRun]) -> Sequence[PublishRun]:
        """Take those runs that tell of presence; returns the others."""
        told = self._told
        if not told:
            return runs
        others: list[PublishRun] = []
        waiting = {run for run, _ in told}
        for run in runs:
            if run not in waiting:
                others.append(run)
                continue
            while told:
                first = told.popleft()
                if first[0] is run:
                    self._open.append(first)
                    break
        return others

    @property
    def has_open(self) -> bool:
        """Something was committed since a window was closed."""
        return bool(self._open)

    def take_open(self) -> list[tuple[PublishRun, Sequence[Presence]]]:
        """What was committed since the last call."""
        taken, self._open = self._open, []
        return taken

    def settle(self, taken: Sequence[tuple[PublishRun, Sequence[Presence]]]) -> list[str]:
        """What was committed counts; returns the topics whose newest record is kept here since."""
        topics: list[str] = []
        for run, presences in taken:
            time_ms = run.received_at_ms  # one object for all its rows
            for row, presence in enumerate(presences):
                device = self._devices.get(presence.client_id)
                if device is None:  # forgotten meanwhile
                    continue
                if device.stored is None:
                    topics.append(presence_topic(presence.client_id))
                else:
                    sample = max(0, time_ms - device.stored_ms)
                    usual_ms = device.stored_interval_ms
                    device.stored_interval_ms = usual_ms + (
                        INTERVAL_WEIGHT * (sample - usual_ms) if usual_ms else sample
                    )
                device.stored = presence
                device.stored_ms = time_ms
                device.stored_offset = run.base_offset + row
                device.stored_number = run.first_number + row
        return topics

    def capture(self) -> list[StoredPresence]:
        """All as they are now."""
        return self._since(0)

    def take_unsaved(self) -> list[StoredPresence]:
        """Those that have changed since the last call."""
        unsaved = self._since(self._saved_offset)
        self._saved_offset = max([each.offset + 1 for each in unsaved], default=self._saved_offset)
        return unsaved

    def _since(self, first: int) -> list[StoredPresence]:
        """Those whose record is at or behind an offset."""
        return [
            StoredPresence(
                device.stored,
                device.stored_offset,
                device.stored_number,
                device.stored_ms,
                device.stored_interval_ms,
            )
            for device in self._devices.values()
            if device.stored is not None and device.stored_offset >= first
        ]

    def topic_name(self, stored: StoredPresence) -> str:
        """The topic of its record."""
        return presence_topic(stored.presence.client_id)

    def entry(self, stored: StoredPresence) -> Entry:
        """Its record as it was stored."""
        presence = stored.presence
        topic = Topic(presence_topic(presence.client_id), self.log)
        payload = presence_json(presence)
        frame = encode_publish(Publish(topic.name, payload, 1, True, False, 1, None), LEVEL_5)
        run = RecordRun(
            frame,
            0,
            (topic,),
            (len(frame) - len(payload),),
            (len(frame),),
            base_offset=stored.offset,
            first_number=stored.number,
            node_run=self._node_run,
            received_at_ms=stored.time_ms,
            client_id=SERVER_CLIENT_ID,
            is_v5=True,
        )
        entry = Entry(topic, self.log, run, 0, self._node_run)
        entry.count = presence.seq
        entry.interval_ms = stored.interval_ms
        return entry
