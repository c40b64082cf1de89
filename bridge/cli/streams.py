"""What `headrace streams …` does: it asks the server that has the data directory, or opens that itself.

What changes something takes the directory's lock when no server has it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import typer

from bridge.api_client import ApiClient, ApiFailed
from bridge.cli.errors import EXIT_USAGE, UserError
from bridge.cli.progress import ProgressBar, say_beside
from bridge.cli.stream_places import Place, all_streams, failed, stream_named
from bridge.cli.stream_tables import dead_letter_table, stream_lines, stream_table
from bridge.config import Config
from bridge.disk_room import bytes_text
from bridge.encoding import rfc3339
from bridge.quantities import parse_size, parse_time_ms
from bridge.start_checks import in_use_text
from bridge.streams.kafka.dead_letters import dead_letter_json, read_dead_letters
from bridge.streams.log import StreamLogError
from bridge.streams.sqlite_schema import DataDirectoryInUse
from bridge.streams.sqlite_store import SqliteStore
from bridge.streams.stored_streams import open_stored

OFFSETS_END = 100_000_000_000
"""A number below it is an offset; as epoch milliseconds it would be before 1973."""
PAGE_LETTERS = 200
PAGE_BYTES = 8 * 1024 * 1024
WAIT_S = 0.05


# Looking


def run_list(place: Place, form: str) -> None:
    """Raises: UserError"""
    streams = all_streams(place)
    print(json.dumps({"streams": streams}, indent=1) if form == "json" else "\n".join(stream_table(streams)))


def run_describe(place: Place, name: str, form: str) -> None:
    """Raises: UserError"""
    stream = stream_named(all_streams(place), name)
    print(json.dumps(stream, indent=1) if form == "json" else "\n".join(stream_lines(stream)))


def run_dead_letters(place: Place, name: str, form: str) -> None:
    """Raises: UserError"""
    server = place.server()
    letters = _letters_of(server, name, is_named=place.url is not None) if server is not None else None
    if letters is None:
        letters = _letters_on_disk(place, name)
    if form == "table":
        for line in dead_letter_table(map(json.loads, letters)):
            print(line)
        return
    for letter in letters:
        sys.stdout.buffer.write(letter + b"\n")
    sys.stdout.flush()


def _letters_of(server: ApiClient, name: str, *, is_named: bool) -> Iterator[bytes] | None:
    """A server's; None when the one whose address was found does not answer."""
    try:
        first = _letters_page(server, name, 0)
    except ApiFailed as error:
        if error.status or is_named:
            raise failed(error) from error
        return None
    return _letters_from(server, name, first)


def _letters_page(server: ApiClient, name: str, after_id: int) -> dict[str, Any]:
    query = [("after", str(after_id)), ("limit", str(PAGE_LETTERS))]
    page: dict[str, Any] = server.ask(f"/streams/{name}/dead-letters", query)
    return page


def _letters_from(server: ApiClient, name: str, page: dict[str, Any]) -> Iterator[bytes]:
    while True:
        for letter in page["dead_letters"]:
            yield json.dumps(letter, ensure_ascii=False, separators=(",", ":")).encode()
        if page["next"] is None:
            return
        try:
            page = _letters_page(server, name, page["next"])
        except ApiFailed as error:
            raise failed(error) from error


def _letters_on_disk(place: Place, name: str) -> Iterator[bytes]:
    stream_named(all_streams(place), name)
    with closing(open_stored(place.data_dir)) as connection:
        after_id = 0
        while letters := read_dead_letters(connection, name, after_id, PAGE_LETTERS, PAGE_BYTES):
            yield from [dead_letter_json(name, letter) for letter in letters]
            after_id = letters[-1].letter_id


# Changing


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a stream shall begin."""

    key: str
    """As the API names it."""
    value: int

    @classmethod
    def of(cls, before: str | None, keep: str | None, now_ms: int) -> Limit:
        """Raises: UserError"""
        if (before is None) == (keep is None):
            raise UserError("give --before T|OFFSET or --bytes SIZE. See: headrace streams trim --help", EXIT_USAGE)
        try:
            if keep is not None:
                return cls("keep_bytes", parse_size(keep if not keep.isdigit() else int(keep)))
            assert before is not None
            if re.fullmatch("[0-9]+", before) and int(before) < OFFSETS_END:
                return cls("before_offset", int(before))
            return cls("before", parse_time_ms(before, now_ms))
        except ValueError as error:
            option = "--bytes" if keep is not None else "--before"
            raise UserError(f"{option}: {error}. See: headrace streams trim --help", EXIT_USAGE) from error

    def __str__(self) -> str:
        if self.key == "keep_bytes":
            return f"its oldest records, so that {bytes_text(self.value)} are kept"
        if self.key == "before_offset":
            return f"its records before offset {self.value:,}"
        return f"its records before {rfc3339(self.value)}"


def run_trim(place: Place, name: str, before: str | None, keep: str | None, *, is_confirmed: bool) -> None:
    """Raises: UserError"""
    limit = Limit.of(before, keep, time.time_ns() // 1_000_000)
    stream = stream_named(all_streams(place), name)
    if not stream["configured"]:
        raise UserError(
            f"stream {name} is not configured: delete it (headrace streams delete {name}), or configure it."
        )
    if stream["storage"] == "kafka":
        raise UserError(
            f"stream {name} is on Kafka, which drops by the retention of its topic; kafka-delete-records trims that."
        )
    _confirm(f"Drop of stream {name} ({_size_text(stream)}) {limit}", is_confirmed)
    first = _first_offset(stream)
    done = _change(
        place, lambda server: _trim_by(server, name, limit, stream), lambda: _trim_here(place.config, name, limit)
    )
    deleted = max(0, done["first_offset"] - first)
    say_beside(f"{name}: {deleted:,} records dropped; it begins with offset {done['first_offset']:,}.")


def _first_offset(stream: dict[str, Any]) -> int:
    partitions = stream["partitions"]
    return int(partitions[0]["first_offset"]) if partitions else 0


def _trim_by(server: ApiClient, name: str, limit: Limit, stream: dict[str, Any]) -> dict[str, Any]:
    """A server answers after a while even when there is more to drop."""
    first = _first_offset(stream)
    with ProgressBar(name) as bar:
        while True:
            done: dict[str, Any] = server.ask(f"/streams/{name}/trim", method="POST", body={limit.key: limit.value})
            if done["complete"]:
                return done
            bar.show(done["first_offset"] - first, stream["records"] or 1, f"{bytes_text(done['bytes'])} left")


async def _trim_here(config: Config, name: str, limit: Limit) -> dict[str, Any]:
    settings = next(stream for stream in config.streams if stream.name == name)
    if settings.storage != "sqlite":
        raise UserError(f"stream {name} is kept in memory, and no server runs: there is nothing to trim.")
    store = SqliteStore.open(config.data_dir)
    try:
        retention = settings.retention
        log = store.open_log(name, retention_age_ms=retention.age_ms, retention_bytes=retention.bytes)
        before = limit.value
        if limit.key == "keep_bytes":
            before = await log.offset_keeping(limit.value)
        elif limit.key == "before":
            before = await log.offset_at(limit.value)
        await log.trim(before)
        return {"first_offset": log.first_offset}
    finally:
        await store.close()


def run_delete(place: Place, name: str, *, is_confirmed: bool) -> None:
    """Raises: UserError"""
    streams = all_streams(place)
    is_remote = place.url is not None and name not in {stream["name"] for stream in streams}
    stream = {"configured": False} if is_remote else stream_named(streams, name)  # a server names configured ones alone
    if stream["configured"]:
        raise UserError(
            f"stream {name} is configured, and devices may write to it. Take it out of the configuration and restart "
            f"the server, then delete it; to empty it: headrace streams trim {name} --before now"
        )
    _confirm(f"Delete stream {name} ({place.url if is_remote else _size_text(stream)})", is_confirmed)
    done = _change(
        place,
        lambda server: server.ask(f"/streams/{name}", method="DELETE"),
        lambda: _delete_here(place.config, name),
    )
    size = _size_text(done if is_remote else stream)
    say_beside(f"{name}: deleted ({size}). The file keeps its size; its room is used again.")


async def _delete_here(config: Config, name: str) -> dict[str, Any]:
    store = SqliteStore.open(config.data_dir)
    try:
        await store.delete_stream(name)
        while store.is_removing:  # noqa: ASYNC110  # the writer's steps have no event
            await asyncio.sleep(WAIT_S)
        return {"deleted": name}
    finally:
        await store.close()


def _change(
    place: Place, by_server: Callable[[ApiClient], dict[str, Any]], here: Callable[[], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Have it done by the server that has the directory, or do it here, under the directory's lock.

    Raises: UserError
    """
    try:
        if place.url is not None:
            return by_server(place.client(place.url))
        try:
            return asyncio.run(_run(here))
        except DataDirectoryInUse as error:
            if error.http_url is None:
                text = in_use_text(place.data_dir, error)
                raise UserError(f"{text} Or give the server's address: --url http://HOST:PORT") from error
            return by_server(place.client(error.http_url))
    except ApiFailed as error:
        raise failed(error) from error
    except StreamLogError as error:
        raise UserError(f"{error}.") from error


async def _run(here: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    return await here()


def _size_text(stream: dict[str, Any]) -> str:
    records, size = stream.get("records"), stream.get("bytes")
    spool = stream.get("spool") or {}
    if records is None:
        return f"{bytes_text(spool['bytes'])} in its spool" if spool else "its extent is not known"
    extra = f", and {bytes_text(spool['bytes'])} in its spool" if spool else ""
    return f"{records:,} records, {bytes_text(size or 0)}{extra}"


def _confirm(question: str, is_confirmed: bool) -> None:
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question}? Nobody can be asked here: do it with --yes.", EXIT_USAGE)
    if not typer.confirm(f"{question}?", err=True):
        raise UserError("nothing was changed.")
