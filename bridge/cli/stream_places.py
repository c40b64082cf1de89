"""Where the streams of a command are: with a server, or in a data directory; and what is known of them there.

A running server says in the directory's lock where it answers; so a command that finds the directory in use asks
exactly that server. Looking needs no lock.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bridge.api_client import ApiClient, ApiFailed
from bridge.cli.errors import EXIT_USAGE, UserError
from bridge.config import Config, StreamConfig
from bridge.config_source import load_config
from bridge.encoding import rfc3339_or_none
from bridge.streams.log import StreamLogError
from bridge.streams.sqlite_schema import FILE_NAME, last_holder
from bridge.streams.stored_streams import StoredStream, open_stored, stored_streams


@dataclass(frozen=True, slots=True)
class Place:
    """Which streams are meant: a server's, or those of a data directory."""

    config: Config
    url: str | None
    token: str | None

    @classmethod
    def of(cls, config_file: Path | None, data: str | None, url: str | None, token: str | None) -> Place:
        """Raises: ConfigError"""
        return cls(load_config(config_file, flags={} if data is None else {"--data": data}), url, token)

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self.config.data_dir

    def client(self, url: str) -> ApiClient:
        """Raises: UserError"""
        try:
            return ApiClient(url, self.token)
        except ValueError as error:
            raise UserError(f"--url: {error}.", EXIT_USAGE) from error

    def server(self) -> ApiClient | None:
        """The server to ask: the one that was named, or the one that runs on the data directory."""
        if self.url is not None:
            return self.client(self.url)
        pid, url = last_holder(self.data_dir)
        return self.client(url) if url is not None and pid is not None and psutil.pid_exists(pid) else None


def stream_named(streams: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for stream in streams:
        if stream["name"] == name:
            return stream
    known = ", ".join(stream["name"] for stream in streams)
    raise UserError(f'there is no stream "{name}"; there are {known}.')


def all_streams(place: Place) -> list[dict[str, Any]]:
    """As the API shows them, with `configured`; from the directory alone what only a server knows is null."""
    server = place.server()
    if server is not None:
        try:
            streams = [{**stream, "configured": True} for stream in server.ask("/streams")["streams"]]
        except ApiFailed as error:
            if error.status or place.url is not None:
                raise failed(error) from error
            server = None  # the lock is of a server that has gone
    if server is None:
        stored = stored_in(place.data_dir)
        streams = [_configured(stream, stored) for stream in place.config.streams]
    elif place.url is not None:
        return streams
    else:
        stored = stored_in(place.data_dir)
    names = {stream["name"] for stream in streams}
    leftover: dict[str, list[StoredStream]] = {}
    for each in stored:
        if each.base_name not in names:
            leftover.setdefault(each.base_name, []).append(each)
    return streams + [_not_configured(name, parts) for name, parts in leftover.items()]


def failed(error: ApiFailed) -> UserError:
    if error.status:
        return UserError(str(error))
    return UserError(f"{error} Is it running (headrace serve)? Another address: --url http://HOST:PORT")


def stored_in(data_dir: Path) -> list[StoredStream]:
    if not (data_dir / FILE_NAME).exists():
        raise UserError(
            f"there is no {FILE_NAME} in {data_dir}. Another directory: --data DIR; a server elsewhere: "
            "--url http://HOST:PORT"
        )
    try:
        with closing(open_stored(data_dir)) as connection:
            return stored_streams(connection)
    except StreamLogError as error:
        raise UserError(f"{error}.") from error


def _configured(settings: StreamConfig, stored: list[StoredStream]) -> dict[str, Any]:
    found = {
        "name": settings.name,
        "storage": settings.storage,
        "topics": list(settings.topics),
        "ack": settings.ack,
        "retention": _retention(settings.retention.age_ms, settings.retention.bytes),
        "configured": True,
    }
    by_name = {stream.name: stream for stream in stored}
    here = by_name.get(settings.name) if settings.storage == "sqlite" else None
    spool = next((stream for stream in stored if stream.is_spool and stream.base_name == settings.name), None)
    found |= _extent(here)
    if settings.storage == "kafka" and spool is not None:
        found["spool"] = {"records": spool.waiting, "bytes": spool.bytes}
    return found


def _not_configured(name: str, parts: list[StoredStream]) -> dict[str, Any]:
    log = next((part for part in parts if not part.is_spool), None)
    found = {
        "name": name,
        "storage": "sqlite" if log is not None else "kafka",
        "topics": [],
        "ack": None,
        "retention": _retention(log.retention_age_ms, log.retention_bytes)
        if log is not None
        else _retention(None, None),
        "configured": False,
        **_extent(log),
    }
    spool = next((part for part in parts if part.is_spool), None)
    if spool is not None:
        found["spool"] = {"records": spool.waiting, "bytes": spool.bytes}
    return found


def _retention(age_ms: int | None, size: int | None) -> dict[str, Any]:
    return {"age_s": age_ms // 1_000 if age_ms is not None else None, "bytes": size}


def _extent(stream: StoredStream | None) -> dict[str, Any]:
    if stream is None:
        return dict.fromkeys(("epoch", "records", "bytes", "oldest", "newest")) | {"partitions": []}
    return {
        "epoch": stream.epoch,
        "records": stream.records,
        "bytes": stream.bytes,
        "oldest": rfc3339_or_none(stream.oldest_ms),
        "newest": rfc3339_or_none(stream.newest_ms),
        "partitions": [{"partition": 0, "first_offset": stream.first_offset, "next_offset": stream.next_offset}],
    }
