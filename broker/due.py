"""Due: who is to be looked at in which second.

Who is gone is taken out at once, so that nothing of it is kept until its time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class Due(Generic[ItemT]):
    """Items by the second of the engine's at which they are due. The items know their seconds."""

    __slots__ = ("_items_by_second",)

    def __init__(self) -> None:
        self._items_by_second: dict[int, dict[ItemT, None]] = {}
        """A dictionary takes half of the memory that a set does."""

    def __len__(self) -> int:
        return sum(map(len, self._items_by_second.values()))

    def put(self, item: ItemT, at_s: int) -> None:
        """The item is due at a second that is still to come."""
        items = self._items_by_second.get(at_s)
        if items is None:
            self._items_by_second[at_s] = {item: None}
        else:
            items[item] = None

    def discard(self, item: ItemT, at_s: int) -> None:
        """The item is not due then any more, if it was."""
        items = self._items_by_second.get(at_s)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._items_by_second[at_s]

    def take(self, now_s: int) -> list[ItemT]:
        """Remove and return what is due in this second, in the order in which it was put."""
        return list(self._items_by_second.pop(now_s, ()))
