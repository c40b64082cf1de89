"""RemoteClient: a client of another broker that connects, and connects again, for as long as it is open.

One task waits; everything else is plain calls of the link. Between tries it waits twice as long each time, up to
`reconnect_s_max`, less a random part, so that many servers do not come back in step.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Literal

from bridge.encoding import rfc3339
from bridge.remote.credentials import CredentialsMissing, read_credentials
from bridge.remote.link import Link, LinkFailed, LinkUser, open_link
from broker.codec import constants
from broker.codec.packets import Connack, Connect
from broker.codec.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.config_remote import RemoteTable
    from bridge.remote.credentials import Credentials
    from broker.codec.packets import Packet

FIRST_WAIT_S = 0.25
STEADY_S = 10.0
"""A connection that has lived so long ends the waiting: the next try comes soon."""
UNSUPPORTED_VERSION = 0x84
UNSUPPORTED_VERSION_3_1_1 = 1
TAKEN_OVER = 0x8E

State = Literal["connecting", "connected", "waiting", "closed"]


class Nobody:
    """A `LinkUser` of a connection by which nothing is sent."""

    def opened(self, link: Link, connack: Connack) -> None: ...

    def closed(self) -> None: ...

    def receive_run(self, data: bytes, position: int) -> int:
        return position

    def receive(self, packet: Packet) -> None: ...

    def receive_too_large(self, first_byte: int, packet_id: int, size: int) -> None: ...

    def has_room(self) -> None: ...


class RemoteClient:
    """See the module's docstring. `user` gets the packets."""

    def __init__(
        self,
        table: RemoteTable,
        client_id: str,
        user: LinkUser,
        log: logging.Logger,
        *,
        keeps_session: bool,
        begins_anew: bool = False,
        session_expiry_s: int = 0,
        receive_maximum: int = 65_535,
        packet_bytes_max: int,
    ) -> None:
        self.client_id = client_id
        self.state: State = "connecting"
        self.since_ms = time.time_ns() // 1_000_000
        """Since when `state` is so, epoch milliseconds."""
        self.failure: str | None = None
        """Why there is no connection; None while there is one."""
        self.connections = 0
        """How many there have been."""
        self.link: Link | None = None
        self._table = table
        self._user = user
        self._log = log
        self._keeps_session = keeps_session
        self._begins_anew = keeps_session and begins_anew
        """The next connection has a new session, which is then kept."""
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self._packet_bytes_max = packet_bytes_max
        self._level = constants.LEVEL_3_1_1 if table.version == "3.1.1" else constants.LEVEL_5
        self._is_level_known = table.version != "auto"
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name=f"remote {self._table.name}")

    async def close(self) -> None:
        """Say DISCONNECT and connect no more."""
        if self.link is not None:
            self.link.close(LinkFailed("closed by us"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._set("closed", None)

    def begin_anew(self) -> None:
        """Have the next connection begin a new session, which is then kept."""
        self._begins_anew = self._keeps_session

    @property
    def protocol(self) -> str | None:
        """The version of MQTT that is spoken; None before that is known."""
        if not self._is_level_known:
            return None
        return "5.0" if self._level == constants.LEVEL_5 else "3.1.1"

    def describe(self) -> dict[str, object]:
        """What `/api/v1/system` shows of a connection, whatever it is for."""
        return {
            "name": self._table.name,
            "broker": str(self._table.broker),
            "state": self.state,
            "since": rfc3339(self.since_ms),
            "error": self.failure,
            "protocol": self.protocol,
            "client_id": self.client_id,
            "connections": self.connections,
        }

    async def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        loop = asyncio.get_running_loop()
        while True:
            self._set("connecting", self.failure)
            began = loop.time()
            try:
                link = await self._connect()
            except (LinkFailed, CredentialsMissing) as error:
                why, code = str(error), getattr(error, "reason_code", 0)
            except Exception as error:  # a host or a client id that nobody can send: it must not end in silence
                why, code = f"{type(error).__name__}: {error}", 0
            else:
                began = loop.time()
                ended = await link.ended
                why, code = str(ended), ended.reason_code
                self.link = None
                if loop.time() - began > STEADY_S:
                    wait_s = FIRST_WAIT_S
            if code == TAKEN_OVER:
                why += f"; another client calls itself {self.client_id} there: give client_id"
                wait_s = self._table.reconnect_s_max
            if why != self.failure:
                fields = {"name": self._table.name, "broker": self._table.broker, "why": why}
                self._log.warning("not connected; trying again", extra={"fields": fields})
            self._set("waiting", why)
            await asyncio.sleep(min(wait_s, self._table.reconnect_s_max) * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, self._table.reconnect_s_max)

    async def _connect(self) -> Link:
        """Raises: LinkFailed, CredentialsMissing"""
        try:
            return await self._connect_as(self._level)
        except LinkFailed as error:
            is_unknown = self._level == constants.LEVEL_5 and not self._is_level_known
            # Old brokers answer with 3.1.1's word for it, or close the connection without any.
            said_so = error.reason_code in (UNSUPPORTED_VERSION, UNSUPPORTED_VERSION_3_1_1) or error.is_silent
            if not is_unknown or not said_so:
                raise
        link = await self._connect_as(constants.LEVEL_3_1_1)
        self._level = constants.LEVEL_3_1_1
        return link

    async def _connect_as(self, level: int) -> Link:
        table = self._table
        credentials = await asyncio.to_thread(read_credentials, table)
        properties = None
        if level == constants.LEVEL_5:
            properties = Properties()
            properties.receive_maximum = self._receive_maximum
            properties.maximum_packet_size = self._packet_bytes_max
            if self._session_expiry_s:
                properties.session_expiry_interval = self._session_expiry_s
        connect = Connect(
            self.client_id,
            level,
            clean_start=not self._keeps_session or self._begins_anew,
            keep_alive_s=table.keep_alive_s,
            username=credentials.username,
            password=credentials.password,
            properties=properties,
        )
        if self._begins_anew and level != constants.LEVEL_5:
            # There a session that begins clean is not kept either: one is begun to end the old one. [MQTT-3.1.2-6]
            link = await self._open(connect, credentials, Nobody(), lambda *_: None)
            link.close(LinkFailed("the old session is over"))
            connect.clean_start = False
        return await self._open(connect, credentials, self._user, self._opened)

    async def _open(
        self, connect: Connect, credentials: Credentials, user: LinkUser, on_open: Callable[[Link, Connack], None]
    ) -> Link:
        """Raises: LinkFailed"""
        link, _ = await open_link(
            self._table.broker,
            user,
            connect,
            packet_bytes_max=self._packet_bytes_max,
            context=credentials.context,
            timeout_s=self._table.connect_timeout_s,
            on_open=on_open,
        )
        return link

    def _opened(self, link: Link, connack: Connack) -> None:
        """CONNACK has come; what follows it may be in the same read."""
        self._is_level_known = True
        self._begins_anew = False
        self._level = link.level
        self.link = link
        self.connections += 1
        self._set("connected", None)
        version = "5.0" if link.is_v5 else "3.1.1"
        fields = {
            "name": self._table.name,
            "broker": self._table.broker,
            "mqtt": version,
            "session": "kept" if connack.session_present else "new",
        }
        self._log.info("connected", extra={"fields": fields})

    def _set(self, state: State, failure: str | None) -> None:
        self.state = state
        self.failure = failure
        self.since_ms = time.time_ns() // 1_000_000
