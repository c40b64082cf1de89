"""Many rows in few SQLite statements, for the writer thread.

Each statement lets go of the interpreter's lock and has to get it back from the event loop, which by then is in the
middle of something: for rows that come one by one with connecting clients that costs several times what SQLite does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

ROWS_MAX = 128
"""In one statement. SQLite takes 32,766 values, and each number of rows is a statement that Python keeps prepared:
powers of two are few."""


def insert_rows(
    connection: sqlite3.Connection, insert: str, rows: Sequence[Sequence[object]], otherwise: str = ""
) -> None:
    """Do `insert` (`INSERT INTO t(a, b)`) with all rows, in order, as `executemany` would.

    `otherwise`: what stands behind the values (`ON CONFLICT …`).
    """
    for piece in pieces(rows):
        values = f"({', '.join('?' * len(piece[0]))})"
        connection.execute(
            f"{insert} VALUES {', '.join([values] * len(piece))} {otherwise}", [value for row in piece for value in row]
        )


def delete_in(connection: sqlite3.Connection, delete: str, values: Sequence[object]) -> None:
    """Do `delete` (`DELETE FROM t WHERE a IN`) with all values."""
    for piece in pieces(values):
        connection.execute(f"{delete} ({', '.join('?' * len(piece))})", piece)


def select_in(connection: sqlite3.Connection, select: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
    """The rows of `select` (`SELECT … WHERE a IN`) for any of the values, in no order."""
    for piece in pieces(values):
        yield from connection.execute(f"{select} ({', '.join('?' * len(piece))})", piece).fetchall()


def pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """All rows, in pieces of `ROWS_MAX` and, of what is left, of powers of two."""
    first, count = 0, len(rows)
    while first < count:
        size = min(ROWS_MAX, 1 << (count - first).bit_length() - 1)
        yield rows[first : first + size]
        first += size
