"""SubscriptionTree: from a topic name to its subscriptions; RouteTree: from a filter to the cached topics it touches.

Both agree with `broker.topics.names.matches`, which is their test. Filters and names given to them are valid ones.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from broker.topics.tree import TopicTree

KeyT = TypeVar("KeyT", bound=Hashable)
SubscriptionT = TypeVar("SubscriptionT")
RouteT = TypeVar("RouteT")


class _Entry(Generic[KeyT, SubscriptionT]):
    """One key's subscription to one filter; `number` says when it was first made."""

    __slots__ = ("key", "number", "subscription")

    def __init__(self, number: int, key: KeyT, subscription: SubscriptionT) -> None:
        self.number = number
        self.key = key
        self.subscription = subscription


class _Node(Generic[KeyT, SubscriptionT]):
    """One level of filters. Most nodes have either children or entries, so each is made when it is first needed."""

    __slots__ = ("children", "entries", "hash", "plus")

    def __init__(self) -> None:
        self.children: dict[str, _Node[KeyT, SubscriptionT]] | None = None
        """By level; `+` and `#` are levels like others."""
        self.plus: _Node[KeyT, SubscriptionT] | None = None
        self.hash: _Node[KeyT, SubscriptionT] | None = None
        """The children of these two levels, for which every topic asks."""
        self.entries: dict[KeyT, _Entry[KeyT, SubscriptionT]] | None = None
        """The subscriptions to the filter that ends here."""


class SubscriptionTree(Generic[KeyT, SubscriptionT]):
    """Subscriptions by topic filter; a key (a session) has at most one for each filter. [MQTT-3.8.4-3]"""

    __slots__ = ("_next_number", "_root", "count", "node_count")

    def __init__(self) -> None:
        self._root: _Node[KeyT, SubscriptionT] = _Node()
        self._next_number = 0
        self.count = 0
        """Subscriptions in all."""
        self.node_count = 0
        """Levels in all; filters that begin alike share theirs."""

    def add(self, topic_filter: str, key: KeyT, subscription: SubscriptionT) -> bool:
        """Add a subscription, or replace it in its place; returns whether it is a new one."""
        node = self._root
        for level in topic_filter.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
                self.node_count += 1
                if level == "+":
                    node.plus = child
                elif level == "#":
                    node.hash = child
            node = child
        if node.entries is None:
            node.entries = {}
        entry = node.entries.get(key)
        if entry is not None:
            entry.subscription = subscription
            return False
        node.entries[key] = _Entry(self._next_number, key, subscription)
        self._next_number += 1
        self.count += 1
        return True

    def remove(self, topic_filter: str, key: KeyT) -> bool:
        """Remove a subscription and the branches that are empty without it; returns whether there was one."""
        node = self._root
        path: list[tuple[_Node[KeyT, SubscriptionT], str]] = []
        for level in topic_filter.split("/"):
            child = node.children.get(level) if node.children is not None else None
            if child is None:
                return False
            path.append((node, level))
            node = child
        if node.entries is None or node.entries.pop(key, None) is None:
            return False
        self.count -= 1
        if not node.entries:
            node.entries = None
            self._prune(path)
        return True

    def _prune(self, path: list[tuple[_Node[KeyT, SubscriptionT], str]]) -> None:
        """Take away the nodes at the end of `path` that lead to nothing."""
        for parent, level in reversed(path):
            assert parent.children is not None
            child = parent.children[level]
            if child.entries is not None or child.children:
                return
            del parent.children[level]
            self.node_count -= 1
            if level == "+":
                parent.plus = None
            elif level == "#":
                parent.hash = None
            if not parent.children:
                parent.children = None

    def match(self, topic_name: str) -> list[tuple[KeyT, SubscriptionT]]:
        """Every subscription whose filter takes the topic, in the order in which they were first made.

        A key comes once for each of its filters that match.
        """
        matched: list[_Entry[KeyT, SubscriptionT]] = []
        nodes = [self._root]
        is_root = topic_name.startswith("$")  # then no wildcard counts on the first level [MQTT-4.7.2-1]
        for level in topic_name.split("/"):
            next_nodes: list[_Node[KeyT, SubscriptionT]] = []
            for node in nodes:
                if node.children is None:
                    continue
                child = node.children.get(level)
                if child is not None:
                    next_nodes.append(child)
                if is_root:
                    continue
                if node.plus is not None:
                    next_nodes.append(node.plus)
                if node.hash is not None and node.hash.entries is not None:
                    matched.extend(node.hash.entries.values())
            if not next_nodes:
                break
            nodes = next_nodes
            is_root = False
        else:
            for node in nodes:
                if node.entries is not None:
                    matched.extend(node.entries.values())
                # `#` takes the level above it, too (§4.7.1.2).
                if node.hash is not None and node.hash.entries is not None:
                    matched.extend(node.hash.entries.values())
        if len(matched) > 1:
            matched.sort(key=_number)
        return [(entry.key, entry.subscription) for entry in matched]


def _number(entry: _Entry[KeyT, SubscriptionT]) -> int:
    return entry.number


class RouteTree(TopicTree[RouteT]):
    """Cached routes by topic name. The owner of the routes bounds their number and, by `node_count`, their depth."""

    __slots__ = ()

    def affected(self, topic_filter: str, nodes_max: int) -> list[RouteT] | None:
        """The routes whose subscribers change with a subscription to `topic_filter`.

        None when finding them is a walk over more than `nodes_max` nodes: resetting all routes costs less then.
        """
        return self.taken_by_few(topic_filter, nodes_max)
