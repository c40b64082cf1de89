"""What is sent to the listeners: whole conversations that are right, and everything that can be made wrong of them.

All of it comes from one `random.Random`, so a seed gives the same bytes again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support import mqtt_wire as wire
from tests.support.websocket_client import encode_frame

PIECES_MAX = 12
BYTES_MAX = 200_000

LYING = [
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff",
    b"\0\0",
    b"\xff\xff",
    b"\x80\x80\x01",
]
"""What stands where lengths, ids and flags do, at the edge of what they may be."""
TEXTS = ["a", "fuzz/a", "fuzz/#", "+/+", "#", "", "/", "$SYS/#", "$share/g/fuzz/#", "$share//x", "$replay/-1h/fuzz/#",
         "$presence/x", "\0", "é\U0001f600", "a/" * 199 + "a", "a/" * 300, "x" * 65_535]  # fmt: skip


def properties(chance: random.Random, own: wire.Properties) -> wire.Properties:
    """Some user properties, and what belongs to the packet."""
    users = [("since", "-1h"), ("a", "b" * chance.randrange(100))]
    return {wire.USER_PROPERTY: chance.sample(users, chance.randrange(3)), **(own if chance.random() < 0.3 else {})}


def packets(chance: random.Random) -> list[bytes]:
    """A conversation of one client, a packet each; most begin with CONNECT."""
    version = chance.choice([wire.V31, wire.V311, wire.V5, wire.V5])
    is_v5 = version == wire.V5
    text = lambda: chance.choice(TEXTS)  # noqa: E731
    packet_id = lambda: chance.choice([0, 1, 2, 3, 65_535])  # noqa: E731
    of_publish: wire.Properties = {wire.CONTENT_TYPE: "text/plain", wire.TOPIC_ALIAS: chance.choice([0, 1, 2, 65_535])}
    of_connect: wire.Properties = {wire.SESSION_EXPIRY: chance.choice([0, 1, 0xFFFF_FFFF]), wire.RECEIVE_MAXIMUM: 2}
    own = lambda values: properties(chance, values) if is_v5 else None  # noqa: E731
    will = wire.Will(text(), b"gone", chance.randrange(3), chance.random() < 0.2) if chance.random() < 0.3 else None
    makers: list[Callable[[], bytes]] = [
        lambda: wire.publish(
            text(),
            chance.randbytes(chance.randrange(200)),
            chance.randrange(3),
            packet_id(),
            version=version,
            retain=chance.random() < 0.2,
            dup=chance.random() < 0.2,
            publish_properties=own(of_publish),
        ),
        lambda: wire.subscribe(
            packet_id(), (text(), chance.randrange(256)), (text(), 1), version=version, subscribe_properties=own({})
        ),
        lambda: wire.unsubscribe(packet_id(), text(), version=version),
        lambda: wire.acknowledgement(chance.choice([4, 5, 6, 7]), packet_id(), chance.choice([0, 0, 0x92, 0xFF])),
        wire.pingreq,
        lambda: wire.packet(chance.randrange(16), chance.randbytes(chance.randrange(20)), chance.randrange(16)),
        lambda: wire.disconnect(chance.choice([0, 4, 0x81])),
    ]
    connect = wire.connect(
        chance.choice(["", "fuzz-a", "fuzz-b", "x" * 300]),
        version,
        clean=chance.random() < 0.7,
        keep_alive=chance.choice([0, 1, 65_535]),
        will=will,
        username=chance.choice([None, "user"]),
        connect_properties=own(of_connect),
    )
    first = [connect] if chance.random() < 0.95 else []
    return first + [chance.choice(makers)() for _ in range(chance.randrange(PIECES_MAX))]


def mutated(chance: random.Random, data: bytes) -> bytes:
    """`data` with a few bytes changed, left out, put in or doubled; sometimes as it is."""
    changed = bytearray(data)
    for _ in range(chance.choice([0, 0, 1, 1, 1, 2, 5, 20])):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] = chance.randrange(256)
        elif kind == 1 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[at : at + chance.choice([1, 2, 10, 1_000])]
        elif kind == 3:
            changed[at:at] = chance.choice(LYING)
        elif kind == 4:
            changed[at : at + chance.randrange(5)] = chance.choice(LYING)
        else:
            changed[at:at] = changed[chance.randrange(len(changed) + 1) :][: chance.randrange(300)]
    return bytes(changed[:BYTES_MAX])


def reads(chance: random.Random, data: bytes) -> list[bytes]:
    """`data` as it may come from the network: in one piece, in a few, or byte by byte for a while."""
    if chance.random() < 0.5 or len(data) < 2:
        return [data]
    cuts = sorted(chance.randrange(1, len(data)) for _ in range(chance.randrange(1, 8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


def mqtt(chance: random.Random) -> list[bytes]:
    """For the MQTT port."""
    return reads(chance, mutated(chance, b"".join(packets(chance))))


def websocket(chance: random.Random, port: int) -> list[bytes]:
    """For the WebSocket port or `/mqtt`: the handshake, the frames or the packets in them are wrong."""
    upgrade = (
        f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    ).encode()
    what = chance.randrange(3)
    payloads = packets(chance)
    frames = [
        encode_frame(
            chance.choice([2, 2, 2, 2, 0, 1, 8, 9, 10, 3]),
            mutated(chance, payload) if what == 0 else payload,
            fin=chance.random() < 0.9,
            rsv=chance.choice([0] * 20 + [1, 4]),
            is_masked=chance.random() < 0.97,
        )
        for payload in payloads
    ]
    body = b"".join(frames)
    if what == 1:
        body = mutated(chance, body)
    elif what == 2:
        upgrade = mutated(chance, upgrade)
    return [upgrade, *reads(chance, body)]


PATHS = ["/", "/healthz", "/api/v1/events?topic=fuzz/%23", "/api/v1/poll?topic=%23&wait=0", "/api/v1/topics",
         "/api/v1/streams", "/api/v1/streams/default/records?limit=3", "/api/v1/histogram?buckets=9",
         "/api/v1/series?topic=%23&points=9", "/api/v1/system", "/metrics", "/openapi.json", "/mqtt",
         "/api/v1/publish"]  # fmt: skip


def http(chance: random.Random) -> list[bytes]:
    """For the HTTP port."""
    path = chance.choice(PATHS)
    body = chance.choice([b"", b'{"topic":"fuzz/http","payload":1}', b"[" * 500, b"x" * 3_000])
    method = chance.choice([b"GET", b"GET", b"POST", b"DELETE", b"OPTIONS", b"PUT"])
    lines = [method + b" " + path.encode() + b" HTTP/1." + chance.choice([b"1", b"1", b"0", b"9"]), b"Host: x"]
    if body or chance.random() < 0.2:
        length = str(len(body)).encode()
        lines.append(
            chance.choice([b"Content-Length: " + length, b"Transfer-Encoding: chunked", b"Content-Length: -1"])
        )
    if chance.random() < 0.2:
        lines.append(b"X: " + b"y" * chance.choice([10, 9_000, 70_000]))
    request = b"\r\n".join([*lines, b"", b""]) + body
    return reads(chance, mutated(chance, request * chance.choice([1, 1, 1, 2])))
