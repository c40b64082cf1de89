"""TopicTree: values by topic name, found by the topic filters that take the name.

It agrees with `broker.topics.names.matches`, which is its test. Names and filters given to it are valid ones.
"""

from __future__ import annotations

from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class _TopicNode(Generic[ValueT]):
    """One level of topic names."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[str, _TopicNode[ValueT]] | None = None
        self.value: ValueT | None = None
        """What is kept of the topic name that ends here."""


class TopicTree(Generic[ValueT]):
    """One value for each topic name, none of them None. The owner of the values bounds them."""

    __slots__ = ("_root", "count", "node_count")

    def __init__(self) -> None:
        self._root: _TopicNode[ValueT] = _TopicNode()
        self.count = 0
        """Topic names with a value."""
        self.node_count = 0
        """Levels in all; names that begin alike share theirs."""

    def add(self, topic_name: str, value: ValueT) -> None:
        """Keep a value for a topic name, in place of the one before."""
        node = self._root
        for level in topic_name.split("/"):
            if node.children is None:
                node.children = {}
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _TopicNode()
                self.node_count += 1
            node = child
        if node.value is None:
            self.count += 1
        node.value = value

    def get(self, topic_name: str) -> ValueT | None:
        """The value of a topic name."""
        node = self._root
        for level in topic_name.split("/"):
            child = node.children.get(level) if node.children is not None else None
            if child is None:
                return None
            node = child
        return node.value

    def discard(self, topic_name: str) -> ValueT | None:
        """Forget a topic name and the branches that are empty without it; returns what was kept for it."""
        node = self._root
        path: list[tuple[_TopicNode[ValueT], str]] = []
        for level in topic_name.split("/"):
            child = node.children.get(level) if node.children is not None else None
            if child is None:
                return None
            path.append((node, level))
            node = child
        value = node.value
        if value is None:
            return None
        node.value = None
        self.count -= 1
        self._prune(path)
        return value

    def _prune(self, path: list[tuple[_TopicNode[ValueT], str]]) -> None:
        """Take away the nodes at the end of `path` that lead to nothing."""
        for parent, level in reversed(path):
            assert parent.children is not None
            child = parent.children[level]
            if child.value is not None or child.children:
                return
            del parent.children[level]
            self.node_count -= 1
            if not parent.children:
                parent.children = None

    def taken_by(self, topic_filter: str) -> list[ValueT]:
        """The values of every topic name that the filter takes; only the branches that can match are walked."""
        values = self.taken_by_few(topic_filter, self.node_count)
        assert values is not None
        return values

    def walk(self, topic_filter: str) -> TopicWalk[ValueT]:
        """As `taken_by`, piece by piece."""
        return TopicWalk(self._root, topic_filter)

    def taken_by_few(self, topic_filter: str, nodes_max: int) -> list[ValueT] | None:
        """As `taken_by`, but None when that would be a walk over more than `nodes_max` nodes."""
        nodes = [self._root]
        is_root = True
        walked = 0
        for level in topic_filter.split("/"):
            if level == "#":
                return _below(nodes, is_root, nodes_max - walked)
            next_nodes: list[_TopicNode[ValueT]] = []
            for node in nodes:
                children = node.children
                if children is None:
                    continue
                if level != "+":
                    child = children.get(level)
                    if child is not None:
                        next_nodes.append(child)
                elif is_root:
                    next_nodes.extend([child for name, child in children.items() if not name.startswith("$")])
                else:
                    next_nodes.extend(children.values())
            nodes = next_nodes
            is_root = False
            walked += len(nodes)
            if walked > nodes_max:
                return None
        return [node.value for node in nodes if node.value is not None]


class TopicWalk(Generic[ValueT]):
    """A walk that stops and goes on; names may be added and removed meanwhile, and are then found or not."""

    __slots__ = ("_is_open", "_levels", "_waiting")

    def __init__(self, root: _TopicNode[ValueT], topic_filter: str) -> None:
        levels = topic_filter.split("/")
        self._is_open = levels[-1] == "#"
        """Whatever is below the last level is taken too."""
        self._levels = levels[:-1] if self._is_open else levels
        self._waiting: list[list[_TopicNode[ValueT]]] = [[] for _ in range(len(self._levels) + 1)]
        """Nodes to look at, by how many levels of the filter have led to them."""
        if levels[0] in ("+", "#"):  # without what begins with `$` [MQTT-4.7.2-1]
            children = root.children or {}
            first = [child for name, child in children.items() if not name.startswith("$")]
            self._waiting[1 if levels[0] == "+" else 0] = first
        else:
            self._waiting[0].append(root)

    def take(self, count: int) -> list[ValueT]:
        """The next values; fewer than `count` at the end."""
        values: list[ValueT] = []
        waiting, levels = self._waiting, self._levels
        depth = last = len(levels)
        while depth >= 0 and len(values) < count:
            nodes = waiting[depth]
            if not nodes:
                depth -= 1
                continue
            node = nodes.pop()
            children = node.children
            if depth == last:
                if node.value is not None:
                    values.append(node.value)
                if children is not None and self._is_open:
                    nodes.extend(children.values())
            elif children is not None:
                level = levels[depth]
                depth += 1
                if level == "+":
                    waiting[depth].extend(children.values())
                elif level in children:
                    waiting[depth].append(children[level])
        return values


def _below(nodes: list[_TopicNode[ValueT]], is_root: bool, nodes_max: int) -> list[ValueT] | None:
    """The values of `nodes` and of all below them; from the root, without what begins with `$`. [MQTT-4.7.2-1]

    None when there are more than `nodes_max` nodes below.
    """
    values: list[ValueT] = []
    waiting = list(nodes)
    if is_root:
        children = nodes[0].children
        waiting = [child for name, child in children.items() if not name.startswith("$")] if children else []
    nodes_max += len(nodes)
    walked = 0
    while waiting:
        node = waiting.pop()
        walked += 1
        if node.value is not None:
            values.append(node.value)
        if node.children is not None:
            waiting.extend(node.children.values())
            if walked + len(waiting) > nodes_max:
                return None
    return values
