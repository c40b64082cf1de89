"""OtherBroker: a broker on a real socket that answers as a script says: for what real ones do seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.codec.decode import Decoder
from broker.codec.encode import encode
from broker.codec.packets import Connack, Connect, Packet, Pingreq, Pingresp

Script = Callable[[asyncio.StreamWriter, Packet, int], None]
"""Writer, packet, protocol level."""


class OtherBroker:
    """Answers each packet as its script says, and notes the packets."""

    def __init__(self, script: Script) -> None:
        self.packets: list[Packet] = []
        self._script = script
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def write(self, data: bytes) -> None:
        """Send to whoever connected last."""
        self._writers[-1].write(data)

    def cut(self) -> None:
        """Close the last connection without a word."""
        self._writers[-1].transport.abort()

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        decoder = Decoder(1 << 20)
        while data := await reader.read(65_536):
            for packet in decoder.feed(data):
                self.packets.append(packet)
                self._script(writer, packet, decoder.protocol_level)
        writer.close()


def welcome(writer: asyncio.StreamWriter, packet: Packet, level: int) -> None:
    if isinstance(packet, Connect):
        writer.write(encode(Connack(), level))
    elif isinstance(packet, Pingreq):
        writer.write(encode(Pingresp(), level))
