"""Hub: what was just committed, as events to every live reader that wants it.

The node calls `committed` after each commit and `flush` at the end of the turn; nothing here waits, and a reader costs
no task. A record is encoded once for all readers of the same streams, joined and framed once for each group.

The position of the hub in a stream (`offsets`) is one past the last record that it was given, in each partition. A
reader is joined to its group in one step, between two commits, when its own position is the hub's: so it misses none
and sees none twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from bridge.cursors import Cursor, Offsets, distance
from bridge.encoding import encode_rows
from bridge.live.events import COMMENT, GapReason, gap_event, last_id, position_event
from bridge.live.feeder import feed_reader
from bridge.live.group import Bell, Group
from bridge.live.held import Overflow, held_for
from bridge.live.limits import LiveLimits
from bridge.live.pieces import Pieces
from bridge.live.reader import Outlet, Place, Reader
from bridge.records import RecordRun, Topic, as_record_run
from broker.limit_hits import LimitHits
from broker.topics.subscriptions import SubscriptionTree

if TYPE_CHECKING:
    from bridge.live.latest import LatestValues
    from bridge.streams.log import StreamLog
    from broker.publish_run import PublishRun

logger = logging.getLogger(__name__)

_READERS_A_STEP = 500


class TooManyReaders(Exception):
    """`readers_max` is reached, or the loop cannot follow."""


class Hub:
    """All live readers of one node."""

    def __init__(
        self,
        logs: Iterable[StreamLog],
        node_run: str,
        latest: LatestValues,
        limits: LiveLimits | None = None,
    ) -> None:
        self.limits = limits or LiveLimits()
        self.log_by_name = {log.name: log for log in logs}
        self.node_run = node_run
        self.latest = latest
        self.offsets: dict[str, Offsets] = {name: log.offsets for name, log in self.log_by_name.items()}
        """By stream: one past the last record that the groups were given, in each partition."""
        self.readers: dict[Reader, None] = {}
        self.polls = 0
        self.limit_hits = LimitHits()
        self.is_late: Callable[[], bool] = lambda: False
        """Whether the loop cannot follow, so that no further reader is taken."""
        self.refused = 0
        """Readers that were one too many."""
        self.events = 0
        """Events encoded, each once however many readers got it."""
        self.conflated = 0
        """Values replaced by a newer one, of readers that have caught up since."""
        self.dropped = 0
        """Events that slow readers were told are gone, as they had asked for."""
        self.cut = 0
        """Readers that were too slow and closed for it, as they had asked for."""
        self.on_cut: Callable[[Reader], None] = lambda reader: None
        """Called for each of these."""
        self.behind = 0
        """How often a reader was too slow and left its group."""
        self._group_by_key: dict[tuple[tuple[str, ...], tuple[str, ...]], Group] = {}
        self._listeners: SubscriptionTree[Group | Bell, None] = SubscriptionTree()
        self._listener_count = 0
        self._version = 0
        """Of the listeners; `Topic.matches` is valid while its version is this one."""
        self.pieces = Pieces()
        self._touched: dict[Group, None] = {}
        self._hungry: deque[Reader] = deque()
        self._fed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closers: dict[Callable[[], None], None] = {}
        self.is_closed = False

    # Life

    def open(self) -> None:
        """Start the feeders and the heartbeat; needs a running loop."""
        self._tasks = [asyncio.create_task(self._feed_readers()) for _ in range(self.limits.feeders)]
        self._tasks.append(asyncio.create_task(self._beat()))

    async def close(self) -> None:
        """End every response and stop. The cursors that readers hold stay good."""
        self.close_readers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def close_readers(self) -> None:
        """End every response; none can be opened any more."""
        self.is_closed = True
        for closer in tuple(self._closers):
            closer()
        for reader in tuple(self.readers):
            reader.close()

    def on_close(self, closer: Callable[[], None]) -> Callable[[], None]:
        """Have `closer` called when the hub closes; returns what takes it back."""
        self._closers[closer] = None
        return lambda: self._closers.pop(closer, None)

    # The live feed

    def committed(self, log: StreamLog, runs: Sequence[PublishRun]) -> None:
        """Take what `log` has just committed, in offset order."""
        self.latest.committed(log, runs)
        if self._listener_count:
            for run in runs:
                self._take(log, run)
        elif runs:
            self.offsets[log.name] = {0: runs[-1].base_offset + len(runs[-1])}

    def read(self, log: StreamLog, runs: Sequence[RecordRun]) -> None:
        """Take what was read back from `log`, in the order of each partition."""
        self.latest.read(log, runs)
        if not self._listener_count:
            self.offsets[log.name] = log.offsets
            return
        for run in runs:
            self._show(log, run.topics, run, {**self.offsets[log.name], run.partition: run.base_offset + len(run)})
        self.offsets[log.name] = log.offsets

    def moved(self, log: StreamLog) -> None:
        """The log's position has changed without a record to show: partitions were added, copies passed over."""
        self.latest.moved(log)
        self.offsets[log.name] = log.offsets

    def cursors_of(self, log: StreamLog) -> dict[tuple[str, ...], str]:
        """The hub's position as a cursor, for each set of streams that someone follows together with this one."""
        streams = {group.streams for group in self._group_by_key.values() if log.name in group.streams}
        return {names: self.cursor_text(self.offsets_of(names)) for names in streams}

    def begin_anew(
        self,
        log: StreamLog,
        before: Mapping[tuple[str, ...], str],
        reason: GapReason = "epoch",
        lost: int | None = None,
    ) -> None:
        """The log goes on elsewhere, in another epoch or behind what it has lost: readers are told, and go on there.

        `before` is what `cursors_of` gave before that.
        """
        if reason == "epoch":
            self.latest.forget(log)
        self.latest.moved(log)
        name = log.name
        for group in self._group_by_key.values():
            if name in group.streams:
                group.flush()
        self.offsets[name] = log.offsets
        for group in self._group_by_key.values():
            if name not in group.streams:
                continue
            after = self.cursor_text(self.offsets_of(group.streams))
            group.write(gap_event(before.get(group.streams, ""), after, lost, reason), tuple(group.members))
            group.told = after
        for reader in tuple(self.readers):
            if name not in reader.group.streams or reader.offsets is None or reason != "epoch" or reader.is_ending:
                continue  # who reads the log by itself sees by itself what is gone
            if reader.held is not None:
                self.stop_holding(reader)
            if reader.parked is not None:
                self.unpark(reader)
            reader.offsets[name] = log.offsets
            if reader.pacing is not None:
                reader.pacing.forget(name)
            if reader.until_offsets is not None:
                reader.until_offsets = None  # it is looked for again under the new epoch
            told = self.cursor_text(reader.offsets)
            reader.write(gap_event(before.get(reader.group.streams, ""), told, None, reason))

    def flush(self) -> None:
        """End of a turn: write every group's events."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for group in touched:
                group.flush()

    # hot path: tests/bench/fan_out.py
    def _take(self, log: StreamLog, run: PublishRun) -> None:
        topics: list[Topic] = [route.sink_topic for route in run.routes]  # type: ignore[misc]  # the bridge opened it
        self._show(log, topics, run, {0: run.base_offset + len(topics)})

    def _show(self, log: StreamLog, topics: Sequence[Topic], run: PublishRun | RecordRun, after: Offsets) -> None:
        """Give the rows to those who want them; the hub stands at `after` then."""
        rows_by_listener = self._rows_by_listener(topics)
        name = log.name
        if not rows_by_listener:
            self.offsets[name] = after
            return
        groups_by_streams: dict[tuple[str, ...], list[tuple[Group, Sequence[int]]]] = {}
        for listener, rows in rows_by_listener.items():
            if isinstance(listener, Bell):
                listener.on_ring()
            elif isinstance(listener, Group) and name in listener.streams:
                groups_by_streams.setdefault(listener.streams, []).append((listener, rows))
        if groups_by_streams:
            record_run = run if isinstance(run, RecordRun) else as_record_run(run, topics, self.node_run)
            for streams, groups in groups_by_streams.items():
                self._encode(log, record_run, streams, groups)
        self.offsets[name] = after
        for groups in groups_by_streams.values():
            for group, _ in groups:
                if group.pending_bytes > self.limits.chunk_bytes_max:
                    group.flush()

    def _rows_by_listener(self, topics: Sequence[Topic]) -> dict[Group | Bell, Sequence[int]]:
        """Which rows each listener wants."""
        version = self._version
        distinct = set(topics)
        for topic in distinct:
            if topic.matches_version != version:
                topic.matches = tuple(dict.fromkeys([key for key, _ in self._listeners.match(topic.name)]))
                topic.matches_version = version
        matches = {topic.matches for topic in distinct}
        if len(matches) == 1:  # the usual case: everyone wants all of the run, or nothing
            return dict.fromkeys(matches.pop(), range(len(topics)))  # type: ignore[arg-type]  # it holds listeners
        rows_by_listener: dict[Group | Bell, list[int]] = {}
        for row, topic in enumerate(topics):
            for listener in topic.matches:
                rows_by_listener.setdefault(listener, []).append(row)  # type: ignore[arg-type]
        return rows_by_listener  # type: ignore[return-value]  # a list is a sequence

    def _encode(
        self, log: StreamLog, run: RecordRun, streams: tuple[str, ...], groups: list[tuple[Group, Sequence[int]]]
    ) -> None:
        """Encode the rows that any of `groups` wants, and give each its own."""
        head, tail = self._around(log, run.partition, streams)
        wanted = groups[0][1] if len(groups) == 1 else sorted({row for _, rows in groups for row in rows})
        events = encode_rows("event", log.name, log.epoch_of(run.partition), run, wanted, head, tail)
        self.events += len(events)
        event_by_row = dict(zip(wanted, events, strict=True)) if len(groups) > 1 else {}
        for group, rows in groups:
            chosen = events if len(rows) == len(wanted) else [event_by_row[row] for row in rows]

            def names(rows: Sequence[int] = rows) -> list[str]:
                return [run.topics[row].name for row in rows]

            group.add(names, chosen)
            self._touched[group] = None

    def _around(self, log: StreamLog, partition: int, streams: tuple[str, ...]) -> tuple[str, str]:
        if len(streams) == 1:
            return log.position(self.offsets[log.name]).around(log.name, partition)
        return self._cursor(self.offsets_of(streams)).around(log.name, partition)

    # Positions

    def _cursor(self, offsets: Mapping[str, Offsets]) -> Cursor:
        logs = self.log_by_name
        return Cursor({name: logs[name].position(places) for name, places in offsets.items()})

    def cursor_text(self, offsets: Mapping[str, Offsets]) -> str:
        """The text of a position in some streams."""
        return str(self._cursor(offsets))

    def beside(self, offsets: Mapping[str, Offsets], stream: str) -> tuple[str, str]:
        """The cursor's text before and behind what it says of `stream`."""
        return self._cursor(offsets).beside(stream)

    def offsets_of(self, streams: Iterable[str]) -> dict[str, Offsets]:
        """The hub's own position in some streams."""
        return {name: self.offsets[name] for name in streams}

    def position_of(self, reader: Reader) -> dict[str, Offsets]:
        """Where a reader stands."""
        return reader.offsets if reader.offsets is not None else self.offsets_of(reader.group.streams)

    def behind_by(self, reader: Reader) -> int:
        """How many records were committed beyond a reader's position, matching or not."""
        return sum(distance(places, self.offsets[name]) for name, places in self.position_of(reader).items())

    def is_ahead(self, reader: Reader) -> bool:
        """Whether a reader has been where the hub has not: before a restart, in what the log shows again only now."""
        return any(
            offset > self.offsets[name].get(partition, 0)
            for name, places in self.position_of(reader).items()
            for partition, offset in places.items()
        )

    def is_caught_up(self, reader: Reader) -> bool:
        """Whether the reader's own position is the hub's."""
        return not self.is_ahead(reader) and not self.behind_by(reader)

    # Readers

    def check_room(self, count: int, what: str) -> None:
        """See that there may be one more than `count` readers. Raises: TooManyReaders."""
        if self.is_late():
            self.refused += 1
            self.limit_hits.hit("mqtt.loop_delay_ms_max")
            raise TooManyReaders("the server has more to do than it can")
        if self.is_closed or count >= self.limits.readers_max:
            self.refused += 1
            self.limit_hits.hit("live.readers_max")
            raise TooManyReaders(f"{count} {what}")

    def open_reader(
        self, filters: tuple[str, ...], streams: tuple[str, ...], overflow: Overflow, outlet: Outlet
    ) -> Reader:
        """Register a reader; `Reader.start` sets it going. Raises: TooManyReaders."""
        self.check_room(len(self.readers), "live readers are connected")
        key = (filters, streams)
        group = self._group_by_key.get(key)
        if group is None:
            group = self._group_by_key[key] = Group(filters, streams)
            self._listen(group)
        group.readers += 1
        reader = Reader(self, group, overflow, outlet)
        self.readers[reader] = None
        return reader

    def _listen(self, listener: Group | Bell) -> None:
        for topic_filter in listener.filters:
            self._listeners.add(topic_filter, listener, None)
        self._listener_count += 1
        self._version += 1

    def _unlisten(self, listener: Group | Bell) -> None:
        for topic_filter in listener.filters:
            self._listeners.remove(topic_filter, listener)
        self._listener_count -= 1
        self._version += 1

    def hang(self, bell: Bell) -> Callable[[], None]:
        """Have a bell rung by what matches its filters; returns what takes it down."""
        self._listen(bell)
        return lambda: self._unlisten(bell)

    def join(self, reader: Reader) -> None:
        """The reader's position is the hub's: from here on its group feeds it. If it is not, it is fed further."""
        group = reader.group
        was_parked = reader.parked is not None
        group.flush()  # what is pending belongs to those who were members before, and to the parked
        kept = reader.parked
        is_exact = kept is not None if was_parked else reader.held is not None or self.is_caught_up(reader)
        if not is_exact:  # what it kept grew over its limit in this very flush
            self.feed(reader)
            return
        group.parked.discard(reader)
        group.holders.discard(reader)
        reader.offsets = reader.bounds = reader.parked = reader.held = None
        reader.parked_bytes = 0
        reader.place = Place.LIVE
        group.members[reader] = None
        limits = self.limits
        is_held = reader.overflow in {"conflate", "drop_oldest"}  # what waits in the transport cannot be taken back
        high = limits.conflate_from_bytes if is_held else limits.waiting_bytes_max
        reader.outlet.set_water_marks(high, limits.feed_bytes_max // 4)
        cursor = self.cursor_text(self.offsets_of(group.streams))
        if kept:
            reader.sent += reader.parked_count
            reader.write(b"".join(kept))
        reader.joined(cursor)

    def leave(self, reader: Reader) -> None:
        """A member is full: from here on its policy counts, and it has a position of its own."""
        group = reader.group
        group.flush()
        group.members.pop(reader, None)
        reader.offsets = self.offsets_of(group.streams)
        self.behind += 1
        self.limit_hits.hit("live.waiting_bytes_max")
        reader.held = held_for(reader.overflow, self.limits.waiting_bytes_max)
        if reader.held is not None:
            reader.place = Place.HOLDING
            group.holders.add(reader)
            return
        reader.place = Place.FULL
        if reader.overflow == "disconnect":
            # Not at once: its transport is in the middle of a write.
            asyncio.get_running_loop().call_soon(self._cut, reader)
        else:
            self.bound_feeding(reader)

    def _cut(self, reader: Reader) -> None:
        """Close a reader that asked for it when it is too slow; it may resume from where it stands."""
        if reader.place is not Place.CLOSED:
            self.cut += 1
            self.on_cut(reader)
            reader.close()

    def leave_to_end(self, reader: Reader) -> None:
        """The end of a live reader is near: from here on it is fed from the log, up to exactly there."""
        if reader.place is not Place.LIVE:
            return  # too slow to be live: it will come to its end by itself, or when it has joined again
        group = reader.group
        group.flush()
        group.members.pop(reader, None)
        reader.offsets = self.offsets_of(group.streams)
        reader.place = Place.FEEDING
        self.bound_feeding(reader)
        self.feed(reader)

    def has_drained(self, reader: Reader, body: bytes) -> None:
        """What was held, or a gap, was written: what is still held was committed after the last of that."""
        text = last_id(body)
        if text is not None:
            positions = Cursor.parse(text).position_by_stream
            reader.offsets = {name: position.offset_by_partition for name, position in positions.items()}

    def stop_holding(self, reader: Reader) -> None:
        """It cannot be held any more: read on from the log, from where the oldest that was held stands."""
        reader.group.holders.discard(reader)
        if reader.held is not None:
            self.conflated += reader.held.conflated
        reader.held = None
        reader.place = Place.FULL if reader.is_full else Place.FEEDING
        self.bound_feeding(reader)
        if reader.place is Place.FEEDING:
            self.feed(reader)

    def bound_feeding(self, reader: Reader) -> None:
        """One piece may wait while the next is read: reading and sending go on at the same time."""
        feed_bytes = self.limits.feed_bytes_max
        reader.outlet.set_water_marks(2 * feed_bytes, feed_bytes)

    def park(self, reader: Reader) -> None:
        """Note the bound of the last piece of history, and keep what is committed from here on."""
        reader.group.flush()
        reader.bounds = self.offsets_of(reader.group.streams)
        reader.parked = []
        reader.parked_bytes = reader.parked_count = 0
        reader.group.parked.add(reader)

    def unpark(self, reader: Reader) -> None:
        """Forget what was kept: it is in the log."""
        reader.group.parked.discard(reader)
        reader.bounds = reader.parked = None
        reader.parked_bytes = 0

    def feed(self, reader: Reader) -> None:
        """Queue a reader for its next piece of history."""
        if not reader.is_queued:
            reader.is_queued = True
            self._hungry.append(reader)
            self._fed.set()

    def forget(self, reader: Reader) -> None:
        """A reader is closed; its group goes with the last one."""
        group = reader.group
        if self.readers.pop(reader, False) is False:
            return
        group.members.pop(reader, None)
        group.parked.discard(reader)
        group.holders.discard(reader)
        key = (group.filters, group.streams)
        group.readers -= 1
        if not group.readers:
            del self._group_by_key[key]
            self._touched.pop(group, None)
            self._unlisten(group)

    async def _feed_readers(self) -> None:
        while True:
            while not self._hungry:
                self._fed.clear()
                await self._fed.wait()
            reader = self._hungry.popleft()
            wait_s = 0.0
            try:
                wait_s = await feed_reader(self, reader)
            except Exception:
                logger.exception("a live reader's history could not be read; the reader is closed")
                reader.close()
            reader.is_queued = False  # only now: two feeders must never hold one reader
            if reader.place is Place.FEEDING and not reader.is_full:
                if wait_s:
                    asyncio.get_running_loop().call_later(wait_s, self._feed_again, reader)
                else:
                    self.feed(reader)

    def _feed_again(self, reader: Reader) -> None:
        if reader.place is Place.FEEDING and not reader.is_full and not self.is_closed:
            self.feed(reader)

    # Heartbeat

    async def _beat(self) -> None:
        interval_s = self.limits.heartbeat_s * 0.9  # so that a late timer keeps the promise
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.beat()
            except Exception:
                logger.exception("a heartbeat failed")

    async def beat(self) -> None:
        """A comment to every reader, and `id:` alone where the position moved without an event."""
        for group in tuple(self._group_by_key.values()):
            members = tuple(group.members)
            told = group.told
            for first in range(0, len(members), _READERS_A_STEP):
                self._beat_members(group, members[first : first + _READERS_A_STEP], told)
                await asyncio.sleep(0)
        self.pieces.drop_old()
        outside = [reader for reader in self.readers if reader.place is not Place.LIVE]
        for number, reader in enumerate(outside):
            reader.heartbeat()
            if number % _READERS_A_STEP == _READERS_A_STEP - 1:
                await asyncio.sleep(0)

    def _beat_members(self, group: Group, members: Sequence[Reader], told: str) -> None:
        group.flush()
        cursor = self.cursor_text(self.offsets_of(group.streams))
        body = COMMENT if cursor == told else COMMENT + position_event(cursor)
        group.told = cursor
        group.write(body, [reader for reader in members if reader in group.members])
