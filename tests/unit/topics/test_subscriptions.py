"""SubscriptionTree and RouteTree against the plain model, under random changes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.topics.names import matches
from broker.topics.subscriptions import RouteTree, SubscriptionTree
from tests.unit.topics.strategies import TOPIC_FILTERS, TOPIC_NAMES

CHANGES = st.lists(st.tuples(st.booleans(), TOPIC_FILTERS, st.integers(0, 3)), max_size=20)


@settings(max_examples=120, deadline=None)
@given(changes=CHANGES, topic_names=st.lists(TOPIC_NAMES, min_size=1, max_size=6))
def test_the_tree_agrees_with_the_model(changes: list[tuple[bool, str, int]], topic_names: list[str]) -> None:
    tree: SubscriptionTree[int, str] = SubscriptionTree()
    model: dict[tuple[str, int], str] = {}
    for number, (is_added, topic_filter, key) in enumerate(changes):
        if is_added:
            assert tree.add(topic_filter, key, f"s{number}") is ((topic_filter, key) not in model)
            model[topic_filter, key] = f"s{number}"
        else:
            assert tree.remove(topic_filter, key) is (model.pop((topic_filter, key), None) is not None)
    assert tree.count == len(model)
    for topic_name in topic_names:
        assert tree.match(topic_name) == [
            (key, subscription)
            for (topic_filter, key), subscription in model.items()
            if matches(topic_filter, topic_name)
        ]


def test_branches_that_are_empty_are_pruned() -> None:
    tree: SubscriptionTree[str, int] = SubscriptionTree()
    tree.add("a/b", "k", 1)
    tree.add("a/b/c/d/#", "k", 1)
    assert tree.node_count == 5
    tree.remove("a/b/c/d/#", "k")
    assert tree.node_count == 2
    tree.add("a", "k", 1)
    tree.remove("a/b", "k")
    assert tree.node_count == 1
    tree.remove("a", "k")
    assert (tree.count, tree.node_count) == (0, 0)


def test_removing_what_is_not_there_changes_nothing() -> None:
    tree: SubscriptionTree[str, int] = SubscriptionTree()
    tree.add("a/b", "k", 1)
    assert not tree.remove("a", "k")
    assert not tree.remove("a/b", "other")
    assert not tree.remove("a/b/c", "k")
    assert tree.match("a/b") == [("k", 1)]


@settings(max_examples=120, deadline=None)
@given(
    changes=st.lists(st.tuples(st.booleans(), TOPIC_NAMES), max_size=20),
    topic_filters=st.lists(TOPIC_FILTERS, min_size=1, max_size=6),
)
def test_affected_routes_are_those_that_the_model_finds(
    changes: list[tuple[bool, str]], topic_filters: list[str]
) -> None:
    tree = RouteTree[str]()
    kept: set[str] = set()
    for is_added, topic_name in changes:
        if is_added:
            tree.add(topic_name, topic_name)
            kept.add(topic_name)
        else:
            assert (tree.discard(topic_name) is not None) is (topic_name in kept)
            kept.discard(topic_name)
    assert tree.count == len(kept)
    for topic_name in kept:
        assert tree.get(topic_name) == topic_name
    for topic_filter in topic_filters:
        affected = tree.affected(topic_filter, tree.node_count)
        assert affected is not None
        assert sorted(affected) == sorted(name for name in kept if matches(topic_filter, name))
    for topic_name in kept:
        tree.discard(topic_name)
    assert (tree.count, tree.node_count) == (0, 0)
