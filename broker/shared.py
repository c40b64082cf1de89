"""Shared subscriptions: sessions that take the messages of a filter together, each message once (MQTT 5 §4.8.2).

A group stands in the tree of subscriptions in place of its members, so a topic's route holds groups, and no member
that comes or goes resets a route. Rows of a run are dealt out together: each member gets its rows as one piece.

Invariants: a member is in `online` exactly while its session has a connection, and in `kept` exactly while it has none
and takes QoS 1 or 2. A message goes to `kept` only while nobody is online.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import TYPE_CHECKING

from broker.delivery import Delivery
from broker.publish_run import pick
from broker.topics.names import split_shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from broker.codec.packets import Subscription
    from broker.config import BrokerConfig
    from broker.metrics import Metrics
    from broker.sessions.session import Session
    from broker.sessions.targets import Target

OTHERS_MAX = 16
"""Members that are looked at beside those whose turn it is, when none of these is free: under overload a message must
not cost a walk through a large group."""


class Member:
    """One session in a group. `place` is its index in the list that it is in."""

    __slots__ = ("_config", "place", "session", "target")

    def __init__(self, target: Target, config: BrokerConfig) -> None:
        self._config = config
        self.session = target.session
        self.target = target
        """Its QoS, subscription identifier and Retain As Published."""
        self.place = 0

    def is_free(self, is_reliable: bool) -> bool:
        """Messages leave at once, as far as can be told; without a connection: they would be kept."""
        outbox = self.session.outbox
        if outbox is None:
            return self.has_room(is_reliable)
        return not (self.session.queue if is_reliable and self.target.qos else outbox.is_blocked)

    def has_room(self, is_reliable: bool) -> bool:
        """A message would not be dropped, as far as can be told."""
        session, config, outbox = self.session, self._config, self.session.outbox
        if is_reliable and self.target.qos:
            return (
                session.queued_messages < config.queued_messages_max and session.queued_bytes < config.queued_bytes_max
            )
        return outbox is not None and not (outbox.is_blocked and outbox.pending_bytes > config.outbox_bytes_max)

    def outstanding(self) -> int:
        """Messages that its client has not acknowledged; who does not read counts as having more than any other."""
        session = self.session
        count = session.queued_messages
        if session.inflight is not None:
            count += session.inflight.count
        return count + (1 << 32 if session.outbox is not None and session.outbox.is_blocked else 0)

    def take(self, delivery: Delivery, now_ms: int) -> None:
        """Deliver rows at the member's own QoS. [MQTT-4.8.2-3]"""
        session, target, run = self.session, self.target, delivery.run
        retain = run.retain and target.retain_as_published  # [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        if delivery.is_reliable and target.qos:
            session.deliver_reliably(delivery, min(target.qos, run.qos), retain, target.identifiers, now_ms)
        elif retain or target.identifiers:
            session.send_qos0_rows(delivery, retain, target.identifiers, now_ms)
        else:
            session.deliver_qos0(delivery)


class ShareGroup:
    """One shared subscription: the members that named the same share and the same filter."""

    __slots__ = ("_chooses_least", "_next", "kept", "member_by_session", "name", "online", "topic_filter")

    def __init__(self, name: str, config: BrokerConfig) -> None:
        self.name = name
        """As subscribed: `$share/name/filter`."""
        self.topic_filter = split_shared(name)[1]
        self.member_by_session: dict[Session, Member] = {}
        self.online: list[Member] = []
        self.kept: list[Member] = []
        self._chooses_least = config.shared_choice == "least_outstanding"
        self._next = 0
        """Whose turn it is, as an index into the list that messages go to."""

    def _list_of(self, member: Member) -> list[Member] | None:
        if member.session.outbox is not None:
            return self.online
        return self.kept if member.target.qos else None

    def enter(self, member: Member) -> None:
        """Put a member where it belongs now."""
        members = self._list_of(member)
        if members is not None:
            member.place = len(members)
            members.append(member)

    def exit(self, member: Member, members: list[Member]) -> None:
        """Take a member out of the list that it is in; the last one gets its place, so that a list need not move."""
        if member.place < len(members) and members[member.place] is member:
            last = members.pop()
            if last is not member:
                members[member.place] = last
                last.place = member.place

    # hot path: tests/bench/shared.py
    def deliver(self, delivery: Delivery, now_ms: int = 0) -> None:
        """Give each row to one member; QoS 0 is dropped while none is connected.

        `now_ms` is 0 for rows that just came, as in `Session.deliver_reliably`.
        """
        is_reliable = delivery.is_reliable
        members = self.online
        if not members:
            if not is_reliable or not self.kept:
                return
            members = self.kept
        run, row, end_row = delivery.run, delivery.row, delivery.end_row
        count = end_row - row
        if self._chooses_least and len(members) > 1:
            for member, rows in self._deal_to_least(members, row, end_row):
                self._give(member, delivery, rows, now_ms)
            return
        takers = self._takers(members, count, is_reliable) if len(members) > 1 else members
        step = len(takers)
        if step == 1 and takers[0].session.owed is None:
            takers[0].take(Delivery(run, row, end_row, is_reliable, self.name), now_ms)
            return
        for index, member in enumerate(takers):
            self._give(member, delivery, range(row + index, end_row, step), now_ms)

    def _give(self, member: Member, delivery: Delivery, rows: Sequence[int], now_ms: int) -> None:
        run, is_reliable = delivery.run, delivery.is_reliable
        # A store keeps a copy for each member, under a number: in the order in which they are given, and no two alike.
        if len(rows) == 1 and member.session.owed is None:
            piece = Delivery(run, rows[0], rows[0] + 1, is_reliable, self.name)
        else:
            piece = Delivery(pick(run, rows, 0 if now_ms else run.number), 0, len(rows), is_reliable, self.name)
        member.take(piece, now_ms)

    def _turns(self, members: list[Member], count: int, turns: int) -> list[Member]:
        """The next `turns` members; the turn goes on by `count`."""
        first = self._next % len(members)
        self._next = (first + count) % len(members)
        in_turn = members[first : first + turns]
        return in_turn + members[: turns - len(in_turn)] if len(in_turn) < turns else in_turn

    def _takers(self, members: list[Member], count: int, is_reliable: bool) -> list[Member]:
        """Round robin: to whom the next `count` messages go in turn.

        Who has a backlog is passed over while another has none, so that one slow member does not hold up what the
        others could do.
        """
        in_turn = self._turns(members, count, min(count, len(members)))
        free = [member for member in in_turn if member.is_free(is_reliable)]
        if free:
            return free
        first = in_turn[-1].place + 1
        others = (members[first:] + members[:first])[:OTHERS_MAX] if len(in_turn) < len(members) else []
        for member in others:
            if member.is_free(is_reliable):
                return [member]
        roomy = [member for member in in_turn if member.has_room(is_reliable)]
        return roomy or [member for member in others if member.has_room(is_reliable)][:1] or in_turn

    def _deal_to_least(self, members: list[Member], row: int, end_row: int) -> list[tuple[Member, Sequence[int]]]:
        """Each row to who has the fewest messages outstanding at that time; among equals in turn."""
        size = len(members)
        in_turn = self._turns(members, end_row - row, size)
        if end_row - row == 1:
            return [(min(in_turn, key=Member.outstanding), (row,))]
        heap = [(member.outstanding(), turn, member) for turn, member in enumerate(in_turn)]
        heapify(heap)
        dealt: dict[Member, list[int]] = {}
        for number in range(row, end_row):
            outstanding, turn, member = heap[0]
            dealt.setdefault(member, []).append(number)
            heapreplace(heap, (outstanding + 1, turn + size, member))
        return list(dealt.items())


class SharedSubscriptions:
    """All groups; at most `shared_groups_max` with `shared_members_max` sessions each."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self.groups: dict[str, ShareGroup] = {}
        """By the shared subscription's whole name, `$share/name/filter`."""
        self._groups_by_session: dict[Session, dict[str, ShareGroup]] = {}
        self.members = 0
        """Memberships in all groups."""
        self.refused = 0
        """Those that were one too many."""
        self.redelivered = 0
        """Messages that went to another member because their session had ended."""

    def has_room(self, session: Session, name: str) -> bool:
        """Whether the session may join; a refusal is counted."""
        group = self.groups.get(name)
        if group is None:
            may_join = len(self.groups) < self._config.shared_groups_max
        else:
            may_join = (
                session in group.member_by_session or len(group.member_by_session) < self._config.shared_members_max
            )
        self.refused += not may_join
        return may_join

    def join(self, session: Session, name: str, subscription: Subscription) -> ShareGroup:
        """Add a session to a group, which is made when there is none, or replace its options. [MQTT-3.8.4-3]"""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = ShareGroup(name, self._config)
        self._take_out(session, group)
        identifier = subscription.subscription_identifier
        target = session.target(
            subscription.qos, False, subscription.retain_as_published, (identifier,) if identifier else ()
        )
        member = group.member_by_session[session] = Member(target, self._config)
        group.enter(member)
        self._groups_by_session.setdefault(session, {})[name] = group
        self.members += 1
        return group

    def leave(self, session: Session, name: str) -> ShareGroup | None:
        """Take a session out of a group; returns the group when it is empty now, and gone."""
        group = self.groups.get(name)
        if group is None:
            return None
        self._take_out(session, group)
        groups = self._groups_by_session.get(session)
        if groups is not None and groups.pop(name, None) is not None and not groups:
            del self._groups_by_session[session]
        if group.member_by_session:
            return None
        del self.groups[name]
        return group

    def _take_out(self, session: Session, group: ShareGroup) -> None:
        member = group.member_by_session.pop(session, None)
        if member is not None:
            group.exit(member, group.online)
            group.exit(member, group.kept)
            self.members -= 1

    def moved(self, session: Session) -> None:
        """The session has a connection now, or has it no more."""
        for group in (self._groups_by_session.get(session) or {}).values():
            member = group.member_by_session[session]
            group.exit(member, group.online)
            group.exit(member, group.kept)
            group.enter(member)

    def close(self) -> None:
        """All connections end: from now on messages go to kept sessions only, not from one that ends to the next."""
        for group in self.groups.values():
            group.online.clear()

    def redeliver(self, session: Session, now_ms: int, metrics: Metrics) -> None:
        """Give what an ended session owes of shared subscriptions to other members.

        That is QoS 1 without an acknowledgement, and whatever was never sent. QoS 2 that was sent is dropped: it could
        arrive twice. [MQTT-4.8.2-4] [MQTT-4.8.2-5]
        """
        for delivery in _owed(session):
            group = self.groups.get(delivery.share)
            if group is None:
                continue
            count = delivery.end_row - delivery.row
            if delivery.run.expires_at_ms and now_ms >= delivery.run.expires_at_ms:  # [MQTT-3.3.2-5]
                metrics.dropped_messages["expired"] += count
                continue
            self.redelivered += count
            group.deliver(delivery, now_ms)


def _owed(session: Session) -> Iterator[Delivery]:
    if session.inflight is not None:
        for qos, flight in session.inflight.in_order():
            if flight.share and qos == 1:
                run = flight.run
                yield Delivery(run, flight.row, flight.end_row, True, flight.share)  # type: ignore[arg-type]
    for queued in session.queue or ():
        if queued.delivery.share:
            yield queued.delivery
