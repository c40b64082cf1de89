"""Many rows in few statements: the same as one by one."""

from __future__ import annotations

import sqlite3

import pytest

from bridge.streams.many_rows import ROWS_MAX, insert_rows, pieces, select_in

COUNTS = (0, 1, 2, 3, 63, ROWS_MAX, ROWS_MAX + 1, 3 * ROWS_MAX + 21)


@pytest.mark.parametrize("count", COUNTS)
def test_every_row_is_there_once_and_in_order(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t(at INTEGER PRIMARY KEY, a, b)")
    rows = [(None, f"a{number}", number) for number in range(count)]
    insert_rows(connection, "INSERT INTO t", rows)
    assert connection.execute("SELECT a, b FROM t ORDER BY at").fetchall() == [(a, b) for _, a, b in rows]


@pytest.mark.parametrize("count", COUNTS)
def test_those_that_are_there_are_found(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t(name TEXT, id INTEGER)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(f"n{number}", number) for number in range(0, count, 3)])
    names = [f"n{number}" for number in range(count)]
    found = dict(select_in(connection, "SELECT name, id FROM t WHERE name IN", names))
    assert found == {f"n{number}": number for number in range(0, count, 3)}


def test_a_row_that_is_refused_is_refused_among_others() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    with pytest.raises(sqlite3.IntegrityError):
        insert_rows(connection, "INSERT INTO t", [(1,), (2,), (1,)])


def test_there_are_few_kinds_of_statements() -> None:
    sizes = {len(piece) for count in range(1_000) for piece in pieces(range(count))}
    assert sizes == {1, 2, 4, 8, 16, 32, 64, ROWS_MAX}
