"""The one SQLite file of a data directory: its lock, its tables, its format version, and what may be wrong with it.

Only the connection made by `open_writer` writes or checkpoints; every other one is `mode=ro` (SQLite before 3.51.3
can damage a WAL that two connections checkpoint).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from bridge.streams.log import StreamLogError

FILE_NAME = "headrace.sqlite"
FILE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the file, and of those that SQLite keeps beside it."""
LOCK_NAME = "headrace.lock"
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""Of what is made here: everything that devices say is in it. What is there already keeps its mode."""
FORMAT_VERSION = 6
"""Of the tables; `frames.FORMAT_VERSION` is that of a record. 2: rows say how often they have each topic. 3: retained
messages. 4: sessions. 5: what they are owed. 6: what was published with a packet id that is not released."""
SQLITE_VERSION_MIN = (3, 35, 0)
PAGE_BYTES = 4096
WAL_CHECKPOINT_BYTES = 32 * 1024 * 1024
"""The WAL is copied into the database each time it has grown by this much."""
CACHE_KIB = 2 * 1024
"""Of the one that writes. A page that has left it is read from the file cache of the system in some microseconds: with
16 MiB neither new names nor changes at random came any faster."""
READER_CACHE_KIB = 2 * 1024
"""A reader passes over bodies once: with pages that stay in the processor's cache it does so in half the time."""
NODE_RUNS_LOW, NODE_RUNS_HIGH = 1 << 28, (1 << 32) - (1 << 24)
"""Where the numbers of a node's runs begin; a record has four bytes for one, and no directory sees 2^24 starts."""
NODE_RUNS_APART = 1 << 20
"""How far from all that a directory has had."""
APPLICATION_ID = 0x48524331  # "HRC1"

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE stream(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
    retention_age_ms INTEGER, retention_bytes INTEGER,
    next_offset INTEGER NOT NULL DEFAULT 0,     -- at least so much, also when retention has left no row
    last_ms INTEGER NOT NULL DEFAULT 0,
    next_topic_id INTEGER NOT NULL DEFAULT 1,
    latest_offset INTEGER NOT NULL DEFAULT 0);  -- the latest_N table knows every record before it
CREATE TABLE unreleased(client_id TEXT, packet_id INTEGER, PRIMARY KEY(client_id, packet_id)) WITHOUT ROWID;
"""

_RETAINED_TABLE = """
CREATE TABLE retained(
    topic TEXT PRIMARY KEY, frame BLOB NOT NULL, is_v5 INTEGER NOT NULL, client_id TEXT NOT NULL,
    received_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL) WITHOUT ROWID;   -- expires_ms 0: never
"""

_SESSION_TABLES = """
CREATE TABLE session(
    client_id TEXT PRIMARY KEY, is_v5 INTEGER NOT NULL, expiry_s INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,    -- 0: it has a connection
    will BLOB, will_delay_s INTEGER NOT NULL, will_due_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE subscription(
    client_id TEXT, filter TEXT, options INTEGER NOT NULL, identifier INTEGER NOT NULL,
    since TEXT, replay_filter TEXT NOT NULL, position TEXT NOT NULL,    -- of a replay; since NULL: it is none
    PRIMARY KEY(client_id, filter)) WITHOUT ROWID;
"""
_DEVICE_TABLE = """
CREATE TABLE IF NOT EXISTS device(
    client_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, online INTEGER NOT NULL, session INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, reason TEXT NOT NULL, by TEXT NOT NULL, since_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL, address TEXT NOT NULL, transport TEXT NOT NULL, protocol INTEGER NOT NULL,
    keep_alive_s INTEGER NOT NULL, expiry_s INTEGER NOT NULL) WITHOUT ROWID
"""
"""Of any format version: a file gets the table when it is opened, and an older Headrace does not look at it."""

_OWED_TABLES = """
ALTER TABLE subscription ADD COLUMN begins TEXT NOT NULL DEFAULT '{}';      -- a position: {log: offset}
CREATE TABLE owed(client_id TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE flight(
    number INTEGER PRIMARY KEY, client_id TEXT NOT NULL, packet_id INTEGER NOT NULL,
    log INTEGER NOT NULL, offset INTEGER NOT NULL, is_released INTEGER NOT NULL,
    retain INTEGER NOT NULL, identifiers TEXT NOT NULL, UNIQUE(client_id, packet_id));
CREATE TABLE copy(
    client_id TEXT, number INTEGER, qos INTEGER NOT NULL, retain INTEGER NOT NULL, identifiers TEXT NOT NULL,
    topic TEXT NOT NULL, frame BLOB NOT NULL, is_v5 INTEGER NOT NULL, publisher TEXT NOT NULL,
    received_ms INTEGER NOT NULL, share TEXT NOT NULL, PRIMARY KEY(client_id, number)) WITHOUT ROWID;
CREATE TABLE ended_flight(
    client_id TEXT, log INTEGER, offset INTEGER, PRIMARY KEY(client_id, log, offset)) WITHOUT ROWID;
"""

_CONTENT_COLUMN = "ALTER TABLE unreleased ADD COLUMN content INTEGER NOT NULL DEFAULT -1;"

_STREAM_TABLES = """
CREATE TABLE batch_{id}(
    base INTEGER PRIMARY KEY, count INTEGER NOT NULL, time_min INTEGER NOT NULL, time_max INTEGER NOT NULL,
    topics BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE topic_{id}(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE chunk_{id}(
    first INTEGER PRIMARY KEY, end INTEGER NOT NULL, bytes INTEGER NOT NULL, time_max INTEGER NOT NULL,
    topics BLOB NOT NULL);
CREATE TABLE latest_{id}(
    topic_id INTEGER PRIMARY KEY, offset INTEGER NOT NULL, time_ms INTEGER NOT NULL, count INTEGER NOT NULL,
    interval_ms INTEGER NOT NULL, segment BLOB NOT NULL);
"""


class StoreUnusable(StreamLogError):
    """The data directory or its file cannot be used; the text says why and what helps."""


class StoreNewer(StoreUnusable):
    """The file was written by a newer Headrace."""


class DataDirectoryInUse(StoreUnusable):
    """Another server has the data directory."""

    def __init__(self, data_dir: Path, pid: int | None, since: str | None, http_url: str | None = None) -> None:
        who = f"process {pid}, since {since}" if pid is not None else "another process"
        super().__init__(f"{data_dir} is in use by another Headrace ({who}); stop it or choose another --data")
        self.pid = pid
        self.since = since
        self.http_url = http_url
        """Where it answers; None: it has not said so."""


class DataDirectoryLock:
    """Held for the life of a store. The kernel lets go of it when its process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        """Raises: DataDirectoryInUse, StoreUnusable"""
        path = data_dir / LOCK_NAME
        try:
            data_dir.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise StoreUnusable(f"cannot use the data directory {data_dir}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 4096)
            os.close(self._descriptor)
            raise DataDirectoryInUse(data_dir, *_holder(holder)) from error
        self._holder = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._write()

    def tell_address(self, http_url: str) -> None:
        """Say where the holder answers, for commands that find the directory in use."""
        self._holder["http"] = http_url
        self._write()

    def _write(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(self._holder).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def _holder(text: bytes) -> tuple[int | None, str | None, str | None]:
    try:
        holder = json.loads(text)
        return int(holder["pid"]), str(holder["since"]), holder.get("http")
    except (ValueError, KeyError, TypeError):  # it was about to be written
        return None, None, None


def last_holder(data_dir: Path) -> tuple[int | None, str | None]:
    """Process and HTTP address of who holds the directory, or held it last: the lock itself is not touched."""
    try:
        pid, _, http_url = _holder((data_dir / LOCK_NAME).read_bytes())
    except OSError:
        return None, None
    return pid, http_url


def open_writer(path: Path) -> sqlite3.Connection:
    """The writing connection, with the tables in place.

    Raises: StoreUnusable, StoreNewer
    """
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old: Headrace needs {needed} or newer")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))  # -wal and -shm get the same mode
    except OSError as error:
        raise StoreUnusable(f"cannot open {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot open {path}: {error}") from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StoreUnusable(f"cannot use {path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not is_new:
        _check_version(connection, path)
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreUnusable(f"cannot use {path}: its file system does not support a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")  # NORMAL would break acknowledgements at a power cut
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_BYTES // page_bytes}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_CHECKPOINT_BYTES * 2}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if is_new:
        connection.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; "
            f"{_TABLES}{_RETAINED_TABLE}{_SESSION_TABLES}{_OWED_TABLES}{_CONTENT_COLUMN}"
            f"INSERT INTO meta VALUES ('format_version', {FORMAT_VERSION}), ('node_run', 0); COMMIT;"
        )
    connection.execute(_DEVICE_TABLE)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    for version in range(check_readable(connection, path), FORMAT_VERSION):
        UPGRADES[version](connection)


def check_readable(connection: sqlite3.Connection, path: Path) -> int:
    """The format version of a file that this Headrace can read.

    Raises: StoreUnusable, StoreNewer
    """
    try:
        found = connection.execute("SELECT value FROM meta WHERE key = 'format_version'").fetchone()
    except sqlite3.DatabaseError as error:
        raise StoreUnusable(f"{path} is not a Headrace database: {error}") from error
    if found is None:
        raise StoreUnusable(f"{path} is not a Headrace database")
    if found[0] > FORMAT_VERSION:
        raise StoreNewer(
            f"{path} was written by a newer Headrace (format {found[0]}, this one reads up to {FORMAT_VERSION})"
        )
    return int(found[0])


def _upgrade_to_2(connection: sqlite3.Connection) -> None:
    """Rows that are there stay as they are: their topics are known, their counts are not."""
    connection.execute("UPDATE meta SET value = 2 WHERE key = 'format_version'")


def _upgrade_to_3(connection: sqlite3.Connection) -> None:
    """A table more; retained messages of before were in memory only."""
    connection.executescript(
        f"BEGIN; {_RETAINED_TABLE} UPDATE meta SET value = 3 WHERE key = 'format_version'; COMMIT;"
    )


def _upgrade_to_4(connection: sqlite3.Connection) -> None:
    """So were sessions."""
    version = "UPDATE meta SET value = 4 WHERE key = 'format_version';"
    connection.executescript(f"BEGIN; {_SESSION_TABLES} {version} COMMIT;")


def _upgrade_to_5(connection: sqlite3.Connection) -> None:
    """Nothing was known of what sessions are owed, and without a mark nothing from before is."""
    version = "UPDATE meta SET value = 5 WHERE key = 'format_version';"
    connection.executescript(f"BEGIN; {_OWED_TABLES} {version} COMMIT;")


def _upgrade_to_6(connection: sqlite3.Connection) -> None:
    """Of ids that are there it is not known (UNKNOWN in `broker.sink`)."""
    version = "UPDATE meta SET value = 6 WHERE key = 'format_version';"
    connection.executescript(f"BEGIN; {_CONTENT_COLUMN} {version} COMMIT;")


UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: _upgrade_to_2,
    2: _upgrade_to_3,
    3: _upgrade_to_4,
    4: _upgrade_to_5,
    5: _upgrade_to_6,
}
"""From a format version to the function that brings a file to the next one, in one transaction."""


def next_node_run(connection: sqlite3.Connection) -> int:
    """The number of this start of the node, raised by one each time and never given twice.

    Nor is it given by another data directory: nodes that share a Kafka topic know their records by it.
    """
    if connection.execute("SELECT 1 FROM meta WHERE key = 'node_runs_from'").fetchone() is None:
        begin_own_runs(connection)  # it is new, or was made when all began with 1
    row = connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'node_run' RETURNING value").fetchone()
    return int(row[0])


def begin_own_runs(connection: sqlite3.Connection) -> None:
    """From here on the node's runs have numbers that are this data directory's own: they begin somewhere at random."""
    (last,) = connection.execute("SELECT value FROM meta WHERE key = 'node_run'").fetchone()
    first = last
    while abs(first - last) < NODE_RUNS_APART:
        first = NODE_RUNS_LOW + secrets.randbelow(NODE_RUNS_HIGH - NODE_RUNS_LOW)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('node_run', ?), ('node_runs_from', ?)", (first, first))


def create_stream_tables(connection: sqlite3.Connection, stream_id: int) -> None:
    """The tables of one stream; within the caller's transaction."""
    for statement in _STREAM_TABLES.format(id=stream_id).split(";"):
        if statement.strip():
            connection.execute(statement)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads. Keep its transactions short: the WAL cannot begin anew under one."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return connection
