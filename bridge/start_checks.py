"""What can stop a server from starting, found early and told as: what, why, the next step."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bridge.config import Config
from bridge.quantities import Address
from bridge.streams.sqlite_schema import DIRECTORY_MODE, SQLITE_VERSION_MIN, DataDirectoryInUse

FLAGS = {"mqtt": "--mqtt", "mqtt-ws": "--ws", "http": "--http"}


class CannotStart(Exception):
    """The server cannot run here and now; the text says why and what to do."""


def addresses(config: Config) -> dict[str, Address]:
    """Where the server listens, by kind, in the order in which they are told."""
    return {"mqtt": config.mqtt_address, "mqtt-ws": config.websocket_address, "http": config.http_address}


def check_sqlite() -> None:
    """Raises: CannotStart, when the SQLite of this Python is too old."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        wanted = ".".join(str(part) for part in SQLITE_VERSION_MIN[:2])
        raise CannotStart(
            f"this Python has SQLite {sqlite3.sqlite_version}; Headrace needs {wanted} (2021). Use a newer Python."
        )


def check_data_directory(data_dir: Path) -> None:
    """Make the data directory and see that files can be made in it.

    Raises: CannotStart
    """
    try:
        data_dir.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
    except FileExistsError:
        raise CannotStart(f"{shown(data_dir)} is a file, not a directory. Choose another: --data DIR") from None
    except PermissionError:
        raise CannotStart(_no_permission(_nearest_existing(data_dir), data_dir)) from None
    except OSError as error:
        raise CannotStart(f"cannot make {shown(data_dir)}: {reason(error)}. Choose another: --data DIR") from error
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise CannotStart(_no_permission(data_dir, data_dir))


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _no_permission(directory: Path, data_dir: Path) -> str:
    status = directory.stat()
    you = user_name(os.geteuid())
    return (
        f"cannot write to {shown(data_dir)} (owner {user_name(status.st_uid)}, mode {status.st_mode & 0o777:o}; "
        f"you are {you}). Choose another: --data ~/headrace, or: sudo chown {you} {shown(directory)}"
    )


def user_name(user_id: int) -> str:
    """The name of a user, or the number of one that has none."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def in_use_text(data_dir: Path, error: DataDirectoryInUse) -> str:
    """`./data is in use by headrace (pid 4711, since 02:58). …`"""
    who = f"headrace (pid {error.pid}, since {_clock_text(error.since)})" if error.pid else "another headrace"
    return f"{shown(data_dir)} is in use by {who}. Stop it, or use another --data."


def _clock_text(since: str | None) -> str:
    """A UTC time as this computer's clock shows it: `02:58`, with the day when that is not today."""
    try:
        then = datetime.strptime(since or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).astimezone()
    except ValueError:
        return "an unknown time"
    is_today = then.date() == datetime.now().astimezone().date()
    return f"{then:%H:%M}" if is_today else f"{then.day} {then:%b %H:%M}"


def day_text(time_ms: int) -> str:
    """`21 Nov 19:02`, in this computer's time zone; with the year when it is another."""
    then = time.localtime(time_ms / 1_000)
    year = f" {then.tm_year}" if then.tm_year != time.localtime().tm_year else ""
    return f"{then.tm_mday} {time.strftime('%b', then)}{year} {time.strftime('%H:%M', then)}"


def open_socket(address: Address) -> socket.socket:
    """A socket bound to `address`, not yet listening.

    Raises:
        OSError: it cannot be bound.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(place)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def check_ports(config: Config, command: str) -> None:
    """See that no two of the server's own addresses are one port.

    Raises: CannotStart
    """
    places = list(addresses(config).items())
    for number, (kind, address) in enumerate(places):
        for other_kind, other in places[:number]:
            if address.port == other.port != 0 and _overlap(address.host, other.host):
                raise CannotStart(
                    f"port {address.port} on {address.host} is in use by this server itself ({FLAGS[other_kind]}). "
                    f"Choose another: {_beside(kind, address, command)}"
                )


def _overlap(host: str, other: str) -> bool:
    """Whether both take connections to some address. Names that nobody knows are told when they are listened on."""
    try:
        ours, others = (
            {(family, place[0]) for family, _, _, _, place in socket.getaddrinfo(each, 0, type=socket.SOCK_STREAM)}
            for each in (host, other)
        )
    except OSError:
        return False
    families = {family for family, _ in ours} & {family for family, _ in others}
    is_any = any(address in ("0.0.0.0", "::") for family, address in ours | others if family in families)
    return bool(ours & others) or is_any


def listening_text(error: OSError, candidates: Sequence[tuple[str, Address]], command: str) -> str:
    """Why one of the addresses cannot be listened on, found by trying each; `kind` of them as in `FLAGS`."""
    for kind, address in candidates:
        try:
            with open_socket(address) as tried:
                tried.listen()
        except OSError as cause:
            return _address_text(cause, kind, address, command)
    return f"cannot listen: {reason(error)}."


def _address_text(error: OSError, kind: str, address: Address, command: str) -> str:
    choose = f"choose another: {_beside(kind, address, command)}"
    if isinstance(error, socket.gaierror):
        return f"{address.host} is not a known address. Check the name, or {choose}"
    if error.errno == errno.EADDRINUSE:
        owner = _port_owner(address)
        return f"port {address.port} on {address.host} is in use{f' by {owner}' if owner else ''}. Stop it, or {choose}"
    if error.errno == errno.EADDRNOTAVAIL:
        here = f"{FLAGS[kind]} 127.0.0.1:{address.port}"
        return f"{address.host} is not an address of this computer. Choose one that is: {here}"
    if error.errno == errno.EACCES:
        free = Address(address.host, address.port + 8_000)
        return (
            f"port {address.port} needs rights that {user_name(os.geteuid())} does not have. "
            f"Choose one above 1023: headrace {command} {FLAGS[kind]} {free}"
        )
    return f"cannot listen on {address}: {reason(error)}. Or {choose}"


def _beside(kind: str, address: Address, command: str) -> str:
    """The command line that takes the next port."""
    other = Address(address.host, address.port + 1 if 0 < address.port < 65_535 else 0)
    return f"headrace {command} {FLAGS[kind]} {other}"


def _port_owner(address: Address) -> str | None:
    """Name and pid of the process that listens on a port; None when this user may not know."""
    try:
        for connection in psutil.net_connections("tcp"):
            is_it = connection.status == psutil.CONN_LISTEN and connection.laddr.port == address.port
            if is_it and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None


def reason(error: OSError) -> str:
    """The system's words for an error, without capitals and numbers."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def shown(path: Path) -> str:
    """A path as it is typed: `./data` for one below the working directory."""
    text = str(path)
    return text if path.is_absolute() or text.startswith((".", "~")) else f"./{text}"
