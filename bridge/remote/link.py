"""Link: one connection to another broker, as its client: bytes to packets, keep alive, and why it ended.

What the packets mean is its user's affair. `open_link` connects and waits for CONNACK; afterwards the link calls
`LinkUser`, never awaits, and ends once.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol, cast

from broker.codec import constants
from broker.codec.decode import decode_packet, next_frame
from broker.codec.encode import PINGREQ, encode_connect, encode_disconnect
from broker.codec.errors import MqttError, PacketTooLarge, ProtocolError
from broker.codec.packets import Connack, Disconnect, Packet
from broker.codec.reason_codes import reason_name

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from bridge.remote.address import BrokerAddress
    from broker.codec.packets import Connect

LEGAL = frozenset(
    (
        *(constants.PUBLISH, constants.PUBACK, constants.PUBREC, constants.PUBREL, constants.PUBCOMP),
        *(constants.SUBACK, constants.UNSUBACK, constants.PINGRESP, constants.DISCONNECT),
    )
)
"""What a server may send after CONNACK (MQTT 5 §2.1.2), but for AUTH, which we never begin."""
WRITE_BUFFER_BYTES_HIGH = 256 * 1024
HEAD_BYTES_MAX = 5 + 2 + 65_535 + 2
"""Of a PUBLISH: fixed header, topic and packet id."""
PARTS_MAX = 64
"""Reads of an unfinished packet kept apart."""


class LinkFailed(Exception):
    """There is no connection, or none any more; the text says why, for people."""

    def __init__(self, text: str, reason_code: int = 0, *, is_silent: bool = False) -> None:
        super().__init__(text)
        self.reason_code = reason_code
        """What the broker said; 0: nothing."""
        self.is_silent = is_silent
        """It closed the connection instead of answering CONNECT."""


class LinkUser(Protocol):
    """Who has the link."""

    def opened(self, link: Link, connack: Connack) -> None:
        """The broker has taken CONNECT; packets may follow in the same read."""

    def closed(self) -> None:
        """The link has ended."""

    def receive_run(self, data: bytes, position: int) -> int:
        """Take as many plain publishes as stand at `position`; the position after them."""

    def receive(self, packet: Packet) -> None:
        """Any other packet. Raises: MqttError, when the broker breaks the protocol."""

    def receive_too_large(self, first_byte: int, packet_id: int, size: int) -> None:
        """A PUBLISH was passed over, since it has more bytes than we take."""

    def has_room(self) -> None:
        """The transport takes more again."""


class Link(asyncio.Protocol):
    """See the module's docstring. Make it with `open_link`."""

    def __init__(
        self,
        user: LinkUser,
        connect: Connect,
        packet_bytes_max: int,
        on_open: Callable[[Link, Connack], None],
    ) -> None:
        self.connack: asyncio.Future[Connack] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[LinkFailed] = asyncio.get_running_loop().create_future()
        """Why, once there is no connection any more."""
        self.level = connect.protocol_level
        self.is_v5 = connect.protocol_level == constants.LEVEL_5
        self.is_full = False
        """The transport has enough to send."""
        self._user = user
        self._on_open = on_open
        self._connect = connect
        self._packet_bytes_max = packet_bytes_max
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._skipping = 0
        """Bytes still to come of a packet that is passed over."""
        self._out: list[bytes] = []
        self._is_flushing = False
        self._is_paused = False
        self._is_open = False
        """CONNACK was a success, and `_user` has been told."""
        self._keep_alive_s = connect.keep_alive_s
        self._last_in = self._loop.time()
        self._beat: asyncio.TimerHandle | None = None

    # What its user calls

    def send(self, data: bytes) -> None:
        """Send with the end of this turn of the loop; nothing, once it has ended."""
        if self._transport is None:
            return
        self._out.append(data)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def pause_reading(self) -> None:
        """Stop reading; the broker's silence is not judged meanwhile."""
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._last_in = self._loop.time()
            self._transport.resume_reading()

    def close(self, why: LinkFailed, reason_code: int = 0) -> None:
        """Send what waits and DISCONNECT, and end."""
        if self._transport is None:
            return
        if self.connack.done() and not self.connack.cancelled():
            self._out.append(encode_disconnect(Disconnect(reason_code), self.level))
        self._flush()
        self._transport.close()
        self._end(why)

    def abort(self, why: LinkFailed) -> None:
        """End without a word, so that the broker repeats what it has not been acknowledged."""
        if self._transport is not None:
            self._transport.abort()
            self._end(why)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
        raw_socket = transport.get_extra_info("socket")
        if raw_socket is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.write(encode_connect(self._connect))

    def data_received(self, data: bytes) -> None:
        """One read."""
        self._last_in = self._loop.time()
        try:
            self._receive(data)
        except MqttError as error:
            self.close(LinkFailed(f"the broker breaks the protocol: {error}"), error.reason_code)

    def pause_writing(self) -> None:
        """The transport is full."""
        self.is_full = True

    def resume_writing(self) -> None:
        """It has room again."""
        self.is_full = False
        self._user.has_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        reason = getattr(exc, "strerror", None) or str(exc or "")
        self._end(LinkFailed(f"the connection was lost: {reason[:1].lower()}{reason[1:]}" if reason else "closed"))

    # Bytes in

    def _receive(self, data: bytes) -> None:
        if self._skipping:
            skipped = min(self._skipping, len(data))
            self._skipping -= skipped
            data = data[skipped:]
        if self._parts:
            self._parts.append(data)
            size = self._wanted_bytes(self._parts[0])
            if size > sum(map(len, self._parts)):
                if len(self._parts) >= PARTS_MAX:
                    self._parts = [b"".join(self._parts)]
                return
            data = b"".join(self._parts)
            self._parts = []
        position, size = 0, len(data)
        while position < size and self._transport is not None and not self._is_refused:
            if self.connack.done():
                reached = self._user.receive_run(data, position)
                if reached > position:
                    position = reached
                    continue
            try:
                frame = next_frame(data, position, self._packet_bytes_max)
            except PacketTooLarge:
                reached = self._pass_over(data, position)
                if reached == position:
                    break
                position = reached
                continue
            if frame is None:
                break
            first_byte, body_start, position = frame
            self._take(first_byte >> 4, decode_packet(first_byte, data[body_start:position], self.level))
        if position < size and self._transport is not None and not self._is_refused:
            self._parts = [data[position:]]

    @property
    def _is_refused(self) -> bool:
        return self.connack.done() and bool(self.connack.result().reason_code)

    def _wanted_bytes(self, tail: bytes) -> int:
        """The size of the frame that `tail` begins, as far as it has to be there; 0 while that is not known."""
        frame_bytes = _frame_bytes(tail)
        return frame_bytes if frame_bytes <= self._packet_bytes_max else 0

    def _pass_over(self, data: bytes, position: int) -> int:
        """Leave a packet out that is larger than we take; the position behind it, or the same one: too little is there.

        An MQTT 5 broker knows our Maximum Packet Size and sends none. One of 3.1.1 would send it again for ever.

        Raises: PacketTooLarge, when it is no PUBLISH.
        """
        first_byte = data[position]
        size = _frame_bytes(data[position : position + 5])
        if first_byte >> 4 != constants.PUBLISH or self.is_v5:
            raise PacketTooLarge(f"packet of {size} bytes")
        at = position + 1
        while data[at] & 0x80:
            at += 1
        at += 1
        if len(data) < at + 2:
            return position
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        if len(data) < at + 2:
            return position
        packet_id = int.from_bytes(data[at : at + 2], "big") if first_byte & 0x06 else 0
        self._user.receive_too_large(first_byte, packet_id, size)
        end = position + size
        self._skipping = max(0, end - len(data))
        return min(end, len(data))

    def _take(self, packet_type: int, packet: Packet) -> None:
        if not self.connack.done():
            if not isinstance(packet, Connack):
                raise ProtocolError(f"{constants.PACKET_NAMES[packet_type]} before CONNACK")
            self.connack.set_result(packet)
            if packet.reason_code:
                return
            self._is_open = True
            self._on_open(self, packet)
            self._user.opened(self, packet)
            if packet.properties is not None and packet.properties.server_keep_alive is not None:
                self._keep_alive_s = packet.properties.server_keep_alive  # [MQTT-3.1.2-21]
            self._look()
            return
        if packet_type not in LEGAL:
            raise ProtocolError(f"{constants.PACKET_NAMES[packet_type]} is not allowed now")
        if isinstance(packet, Disconnect):
            code = packet.reason_code
            self.abort(LinkFailed(f"the broker ended it: {reason_name(code)} (0x{code:02x})", code))
        elif packet_type != constants.PINGRESP:
            self._user.receive(packet)

    # Keep alive

    def _look(self) -> None:
        """Ping in time, and leave a broker that is silent. [MQTT-3.1.2-20]"""
        if self._transport is None or not self._keep_alive_s:
            return
        now = self._loop.time()
        if not self._is_paused and now - self._last_in > 1.5 * self._keep_alive_s:
            self.abort(LinkFailed(f"the broker has been silent for {now - self._last_in:.0f} s"))
            return
        # Also beside other packets: a broker that only takes would else seem to be silent.
        self.send(PINGREQ)
        self._beat = self._loop.call_later(self._keep_alive_s / 2, self._look)

    # Bytes out

    def _flush(self) -> None:
        self._is_flushing = False
        if self._out and self._transport is not None:
            data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
            self._transport.write(data)
        self._out.clear()

    def _end(self, why: LinkFailed) -> None:
        self._transport = None
        self._parts = []
        if self._beat is not None:
            self._beat.cancel()
        if not self.ended.done():
            self.ended.set_result(why)
            if self._is_open:
                self._user.closed()
        if not self.connack.done():
            self.connack.set_exception(why)


async def open_link(
    address: BrokerAddress,
    user: LinkUser,
    connect: Connect,
    *,
    packet_bytes_max: int,
    context: ssl.SSLContext | None,
    timeout_s: float,
    on_open: Callable[[Link, Connack], None],
) -> tuple[Link, Connack]:
    """Connect; the CONNACK is a success.

    Raises:
        LinkFailed: nobody answers, or the broker refuses.
    """
    loop = asyncio.get_running_loop()
    link = Link(user, connect, packet_bytes_max, on_open)
    try:
        async with asyncio.timeout(timeout_s):
            await loop.create_connection(
                lambda: link,
                address.host,
                address.port,
                ssl=context,
                server_hostname=address.host if context is not None else None,
            )
            connack = await link.connack
    except TimeoutError as error:
        link.abort(LinkFailed("no answer in time"))
        raise LinkFailed(f"{address} does not answer within {timeout_s:g} s") from error
    except OSError as error:
        text = getattr(error, "verify_message", None) or error.strerror or str(error)
        raise LinkFailed(f"nobody answers at {address}: {text[:1].lower()}{text[1:]}") from error
    except LinkFailed as error:
        raise LinkFailed(
            f"{address} has not taken CONNECT: {error}", error.reason_code, is_silent=not error.reason_code
        ) from error
    finally:
        if link.connack.done() and not link.connack.cancelled():
            link.connack.exception()  # it has been seen
        else:
            link.connack.cancel()
    if connack.reason_code:
        code = connack.reason_code
        text = reason_name(code) if link.is_v5 else REFUSALS_3_1_1.get(code, "unknown")
        link.abort(LinkFailed("refused"))
        raise LinkFailed(f"{address} refuses the connection: {text} (0x{code:02x})", code)
    return link, connack


REFUSALS_3_1_1 = {
    1: "it does not speak this version of MQTT",
    2: "it does not take this client id",
    3: "it is not available",
    4: "wrong user name or password",
    5: "not authorized",
}
"""Return codes of CONNACK (MQTT 3.1.1 §3.2.2.3)."""


def _frame_bytes(tail: bytes) -> int:
    """Bytes of the frame that begins with `tail`; 0 while its length is not complete."""
    remaining = 0
    for index in range(1, min(5, len(tail))):
        remaining |= (tail[index] & 0x7F) << 7 * (index - 1)
        if not tail[index] & 0x80:
            return index + 1 + remaining
    return 0
