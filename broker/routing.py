"""Routing: from a topic's bytes to its subscribers and its place in the sink.

A `Route` is cached by the topic's bytes, so that the usual publish costs one dictionary look-up. Its `Targets` are the
sessions and shared subscriptions that match; equal sets are one object, so that a run of publishes for the same
subscribers is delivered as one piece, whatever their topics. A change of a subscription resets just the routes that its
filter touches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.decode import Streamed
from broker.codec.errors import TopicNameNotAccepted
from broker.delivery import Delivery
from broker.shared import SharedSubscriptions, ShareGroup
from broker.topics.names import SHARE_PREFIX, refuse_control_characters, validate_topic_name
from broker.topics.subscriptions import RouteTree, SubscriptionTree

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.codec.packets import Subscription
    from broker.config import BrokerConfig
    from broker.limit_hits import LimitHits
    from broker.publish_run import PublishRun
    from broker.sessions.session import Session
    from broker.sessions.targets import Target
    from broker.sink import SinkTopic

RESERVED_PREFIXES = ("$SYS/", "$presence/", "$server/", "$replay/", "$share/")
"""Topics that no client publishes to begin so, or are one of these without the slash: `$presence/#` takes `$presence`
too (MQTT 5 §4.7.1.2)."""
RESERVED_TOPICS = frozenset(prefix[:-1] for prefix in RESERVED_PREFIXES)


WALKED_NODES_MAX = 4_000
"""A filter that touches more of the cached topics than this resets them all: 10 ms for 250,000 routes where finding
them takes up to 500 (`#` below a busy root)."""

LEVELS_PER_ROUTE = 4
"""Nodes of the tree of cached topics for each route; names of many levels make the cache forget earlier."""


def is_reserved(topic_name: str) -> bool:
    """Whether nobody but the server publishes there; what begins with `$share/` could be subscribed to by nobody."""
    return topic_name.startswith(RESERVED_PREFIXES) or topic_name in RESERVED_TOPICS


class Targets:
    """The sessions that take a topic, by the way in which they take it."""

    __slots__ = ("groups", "key", "only", "qos0", "reliable", "routes", "special")

    def __init__(self, targets: tuple[Target, ...], groups: tuple[ShareGroup, ...]) -> None:
        self.key: tuple[Target | ShareGroup, ...] = targets + groups
        self.groups = groups
        """Shared subscriptions, of which each gives a message to one of its members."""
        self.routes = 0
        """How many cached routes have these targets; the router forgets them with the last one."""
        self.qos0 = tuple(target.session for target in targets if target.qos == 0 and target.is_simple)
        self.reliable = tuple((target.session, target.qos) for target in targets if target.qos and target.is_simple)
        self.special = tuple(target for target in targets if not target.is_simple)
        self.only = targets[0].session if len(self.key) == 1 and targets and targets[0].is_simple else None
        """The one session that takes the topic, as any would."""

    def deliver(self, delivery: Delivery, now_ms: int) -> None:
        """Give the rows to every session."""
        for session in self.qos0:
            session.deliver_qos0(delivery)
        if delivery.is_reliable:
            qos_published = delivery.run.qos
            for session, qos in self.reliable:
                session.deliver_reliably(delivery, qos if qos < qos_published else qos_published)
        else:
            for session, _ in self.reliable:
                session.deliver_qos0(delivery)
        for target in self.special:
            target.session.deliver_special(delivery, target, now_ms)
        for group in self.groups:
            group.deliver(delivery)

    def __len__(self) -> int:
        return len(self.key)


class Route(Streamed):
    """One topic name with its subscribers and its place in the sink.

    `encoded_topic` is the topic as it stands on the wire: two bytes of length, then UTF-8. `targets` is None until it
    is needed after a change of subscriptions.
    """

    __slots__ = ("encoded_topic", "is_cached", "sink_topic", "targets", "topic_name")

    def __init__(self, topic_name: str, encoded_topic: bytes, sink_topic: SinkTopic | None) -> None:
        super().__init__(sink_topic.stream if sink_topic is not None else None)
        self.topic_name = topic_name
        self.encoded_topic = encoded_topic
        self.sink_topic = sink_topic
        self.targets: Targets | None = None
        self.is_cached = True
        """False while it is in no cache; such a route finds its targets anew each time."""


class Router:
    """All subscriptions, the cached routes and the way from one to the other."""

    def __init__(
        self, config: BrokerConfig, open_sink_topic: Callable[[str], SinkTopic | None], limits: LimitHits
    ) -> None:
        self._limits = limits
        self._config = config
        self._open_sink_topic = open_sink_topic
        self.routes: dict[bytes, Route] = {}
        """By the topic's UTF-8 bytes; at most `routes_max` and `routes_bytes_max`, the oldest leaves."""
        self._routes_bytes = 0
        """Of their topics."""
        self._route_tree = RouteTree[Route]()
        self._nodes_max = LEVELS_PER_ROUTE * config.routes_max
        self.subscriptions: SubscriptionTree[Session | ShareGroup, Subscription] = SubscriptionTree()
        self.shared = SharedSubscriptions(config)
        self._targets_by_key: dict[tuple[Target | ShareGroup, ...], Targets] = {}

    def open_route(self, topic: bytes) -> Route | None:
        """The route of a topic that a client published to; None when clients may not publish there.

        Raises:
            MqttError: `topic` is not a topic name (MQTT 5 §4.7), or holds control characters.
        """
        topic_name = validate_topic_name(topic)
        refuse_control_characters(topic_name)
        if topic_name.count("/") >= self._config.topic_levels_max:
            self._limits.hit("topic_levels_max")
            raise TopicNameNotAccepted(f"topic name of more than {self._config.topic_levels_max} levels")
        if topic_name.startswith("$") and is_reserved(topic_name):
            return None
        return self.add_route(topic_name, topic)

    def add_route(self, topic_name: str, topic: bytes) -> Route:
        """The route of a valid topic name, made and cached when there is none.

        The cache says where clients may publish: what the server alone publishes to stays out of it.
        """
        route = self.routes.get(topic)
        if route is not None:
            return route
        if topic_name.startswith("$") and is_reserved(topic_name):
            route = Route(topic_name, len(topic).to_bytes(2, "big") + topic, self._open_sink_topic(topic_name))
            route.is_cached = False
            return route
        config = self._config
        while True:
            if len(self.routes) >= config.routes_max or self._route_tree.node_count > self._nodes_max:
                self._limits.hit("routes_max")
            elif self._routes_bytes + len(topic) > config.routes_bytes_max and self.routes:
                self._limits.hit("routes_bytes_max")
            else:
                break
            oldest = next(iter(self.routes))
            self._routes_bytes -= len(oldest)
            dropped = self.routes.pop(oldest)
            self._route_tree.discard(dropped.topic_name)
            self._release_targets(dropped)
            dropped.is_cached = False
        route = Route(topic_name, len(topic).to_bytes(2, "big") + topic, self._open_sink_topic(topic_name))
        self.routes[topic] = route
        self._routes_bytes += len(topic)
        self._route_tree.add(topic_name, route)
        return route

    def subscribe(self, session: Session, topic_filter: str, subscription: Subscription) -> None:
        """Add or replace one subscription. [MQTT-3.8.4-3]"""
        if topic_filter.startswith(SHARE_PREFIX):
            group = self.shared.join(session, topic_filter, subscription)
            if not self.subscriptions.add(group.topic_filter, group, subscription):
                return
            topic_filter = group.topic_filter
        else:
            self.subscriptions.add(topic_filter, session, subscription)
        self._reset(topic_filter)

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Remove one subscription."""
        if topic_filter.startswith(SHARE_PREFIX):
            group = self.shared.leave(session, topic_filter)
            if group is None:
                return
            topic_filter = group.topic_filter
            self.subscriptions.remove(topic_filter, group)
        else:
            self.subscriptions.remove(topic_filter, session)
        self._reset(topic_filter)

    def _reset(self, topic_filter: str) -> None:
        affected = self._route_tree.affected(topic_filter, WALKED_NODES_MAX)
        if affected is not None:
            for route in affected:
                self._release_targets(route)
            return
        for route in self.routes.values():
            route.targets = None
        self._targets_by_key.clear()

    def _release_targets(self, route: Route) -> None:
        targets = route.targets
        route.targets = None
        if targets is not None:
            targets.routes -= 1
            if not targets.routes:
                del self._targets_by_key[targets.key]

    def forget(self, session: Session) -> None:
        """A session has ended: nothing here keeps it, since its filters touch every route that leads to it."""
        for topic_filter in session.subscriptions or ():
            self.unsubscribe(session, topic_filter)

    def resolve(self, route: Route) -> Targets:
        """Find the route's targets again."""
        matched = self.subscriptions.match(route.topic_name)
        if len(matched) == 1 and not isinstance(matched[0][0], ShareGroup):
            merged: tuple[Target, ...] = (_alone(matched[0][0], matched[0][1]),)
            groups: list[ShareGroup] = []
            key: tuple[Target | ShareGroup, ...] = merged
        else:
            merged, groups = _sort_out(matched)
            key = (*merged, *groups)
        targets = self._targets_by_key.get(key)
        if targets is None:
            targets = Targets(merged, tuple(groups))
        if route.is_cached:
            self._targets_by_key[key] = targets
            targets.routes += 1
            route.targets = targets
        return targets

    # hot path: tests/bench/receive.py
    def route(self, run: PublishRun) -> None:
        """Deliver a run.

        Rows that follow one another, go to the same targets and have the same kind of QoS are delivered as one piece.
        """
        if not self.subscriptions.count:  # devices and live readers alone: nothing to look for
            if run.is_v5 and run.reliable:
                run.unmatched = [(0, len(run.routes))]
            return
        routes = run.routes
        packet_ids = run.packet_ids
        is_plain = run.is_plain and not run.retain
        end = len(routes)
        row = 0
        while row < end:
            route = routes[row]
            targets = route.targets
            if targets is None:
                targets = self.resolve(route)
            next_row = row + 1
            is_reliable = bool(packet_ids) and packet_ids[row] != 0
            while next_row < end:
                following = routes[next_row].targets
                if following is None:
                    following = self.resolve(routes[next_row])
                if following is not targets:
                    break
                if packet_ids and (packet_ids[next_row] != 0) is not is_reliable:
                    break
                next_row += 1
            if targets.only is not None and is_plain and not is_reliable:
                targets.only.deliver_as_read(run, row, next_row)  # a third of the time, and fleets have many of these
            elif targets.key:
                targets.deliver(Delivery(run, row, next_row, is_reliable), run.received_at_ms)
            elif is_reliable and run.is_v5:
                if run.unmatched is None:
                    run.unmatched = []
                run.unmatched.append((row, next_row))
            row = next_row


def _sort_out(
    matched: list[tuple[Session | ShareGroup, Subscription]],
) -> tuple[tuple[Target, ...], list[ShareGroup]]:
    """What a topic's subscriptions come to: one target for each session, and the shared subscriptions."""
    by_session: dict[Session, list[Subscription]] = {}
    groups: list[ShareGroup] = []
    for taker, subscription in matched:
        if isinstance(taker, ShareGroup):
            groups.append(taker)
        else:
            by_session.setdefault(taker, []).append(subscription)
    return tuple([_merge(session, subscriptions) for session, subscriptions in by_session.items()]), groups


def _alone(session: Session, subscription: Subscription) -> Target:
    identifier = subscription.subscription_identifier
    return session.target(
        subscription.qos,
        subscription.no_local,
        subscription.retain_as_published,
        (identifier,) if identifier else (),
    )


def _merge(session: Session, subscriptions: list[Subscription]) -> Target:
    """One session's subscriptions that match a topic, as one: the highest QoS, all identifiers."""
    if len(subscriptions) == 1:
        return _alone(session, subscriptions[0])
    not_no_local = [subscription for subscription in subscriptions if not subscription.no_local]
    is_mixed = 0 < len(not_no_local) < len(subscriptions)
    return session.target(
        max(subscription.qos for subscription in subscriptions),
        not not_no_local,
        any(subscription.retain_as_published for subscription in subscriptions),
        tuple(s.subscription_identifier for s in subscriptions if s.subscription_identifier),
        _merge(session, not_no_local) if is_mixed else None,
    )
