"""CONNECT and its answer (MQTT 5 §3.1, §3.2)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from broker.codec import constants
from broker.codec.encode import PUBREL_STREAM, encode_connack
from broker.codec.errors import ClientIdentifierNotValid, NotAnswered
from broker.codec.packets import Connack
from broker.codec.properties import Properties
from broker.codec.reason_codes import connack_code_3_1_1, reason_word
from broker.hooks import connect_refusal
from broker.protocol import state as states
from broker.protocol.allowance import Allowance
from broker.protocol.close_reason import CloseReason
from broker.sessions.aliases import OutboundAliases
from broker.sessions.replays import open_replays
from broker.sessions.resending import resend
from broker.topics.names import has_control_characters, refuse_control_characters

if TYPE_CHECKING:
    from broker.codec.packets import Connect
    from broker.protocol.connection import Connection

BAD_AUTHENTICATION_METHOD = 0x8C
CLIENT_IDENTIFIER_NOT_VALID = 0x85
QUOTA_EXCEEDED = 0x97
NOT_AUTHORIZED = 0x87
EXPIRY_NEVER = 0xFFFF_FFFF
KEEP_ALIVE_S_MAX = 65_535
NO_PROPERTIES = Properties()
"""Of a CONNECT without any, to read; and of the answer to 3.1 and 3.1.1, which has none."""
ACCEPTED = encode_connack(Connack(False, 0), constants.LEVEL_3_1_1)
"""The answer to most CONNECTs of 3.1 and 3.1.1."""
RESERVED_CLIENT_IDS = ("$ingest/", "$egress/")
"""How records and presence name what this server itself takes from other brokers and sends there: no device may be
taken for that."""


def handle_connect(connection: Connection, packet: Connect, now_ms: int) -> None:
    """Open or resume the session, answer, then send what the session still owes. [MQTT-3.2.0-1]"""
    engine = connection.engine
    connection.protocol_level = packet.protocol_level
    connection.is_v5 = packet.protocol_level == constants.LEVEL_5
    connection.is_bridge = packet.is_bridge
    connection.username = packet.username
    connection.client_id = packet.client_id
    properties = packet.properties if packet.properties is not None else NO_PROPERTIES
    connection.wants_reasons = properties.request_problem_information == 1
    refusal = _refusal(connection, packet)
    if refusal is not None:
        refuse_connect(connection, *refusal, properties.maximum_packet_size or 0)
        return
    answer = Properties() if connection.is_v5 else NO_PROPERTIES
    client_id = packet.client_id
    if not client_id:
        client_id = f"auto-{secrets.token_hex(8)}"
        if connection.is_v5:
            answer.assigned_client_identifier = client_id  # [MQTT-3.2.2-16]
    connection.client_id = client_id
    hook = engine.hooks.on_connect
    if hook is not None and (reason_code := connect_refusal(hook(connection, packet))):
        refuse_connect(connection, reason_code)
        return
    expiry_s = _session_expiry_s(connection, packet, properties, answer)
    session, is_present = engine.attach(connection, client_id, packet.clean_start, expiry_s)
    receive_maximum = properties.receive_maximum or 65_535
    session.quota = min(receive_maximum, engine.config.inflight_messages_max)
    session.packet_bytes_max = properties.maximum_packet_size or 0
    aliases = min(properties.topic_alias_maximum or 0, engine.config.topic_aliases_sent_max)  # [MQTT-3.1.2-26]
    session.aliases = OutboundAliases(aliases) if aliases else None
    _set_keep_alive(connection, packet, answer)
    config = engine.config
    if config.client_bytes_per_s_max or config.client_messages_per_s_max:
        connection.allowance = Allowance(config.client_bytes_per_s_max, config.client_messages_per_s_max, now_ms)
    if connection.is_v5:
        answer.receive_maximum = engine.config.receive_maximum
        answer.maximum_packet_size = engine.config.packet_bytes_max
        answer.topic_alias_maximum = engine.config.topic_alias_maximum
    # 3.1 has no session present flag: the byte is reserved there.
    session_present = is_present and connection.protocol_level != constants.LEVEL_3_1
    if connection.is_v5 or session_present:
        connack = Connack(session_present, 0, answer if connection.is_v5 else None)
        encoded = encode_connack(connack, connection.protocol_level)
    else:
        encoded = ACCEPTED
    if session.packet_bytes_max and len(encoded) > session.packet_bytes_max:  # [MQTT-3.1.2-24]
        connection.close(CloseReason.REFUSED)
        return
    connection.will = packet.will
    engine.kept.begun(connection)
    connection.state = states.CONNECTED
    engine.metrics.answer_bytes_sent += len(encoded)
    connection.outbox.append(encoded)
    if is_present:
        resend(session, PUBREL_STREAM, now_ms)
        session.send_queued(now_ms)
        open_replays(session)


def _refusal(connection: Connection, packet: Connect) -> tuple[int, str] | None:
    """The reason code with which the CONNECT is refused, and its words; None: it is not.

    Raises:
        ClientIdentifierNotValid, NotAnswered, TopicNameInvalid: client identifier, user name or the will's topic holds
            control characters (§1.5.4).
    """
    engine = connection.engine
    if has_control_characters(packet.client_id):
        raise ClientIdentifierNotValid("a client identifier with a control character")
    if packet.username is not None and has_control_characters(packet.username):
        raise NotAnswered("a user name with a control character")
    properties = packet.properties
    if properties is not None and properties.authentication_method is not None:
        return BAD_AUTHENTICATION_METHOD, "no authentication method is configured"  # [MQTT-4.12.0-1]
    if refusal := engine.connect_refusal():
        return refusal
    if packet.client_id not in engine.sessions.session_by_client_id and engine.sessions.is_full:
        engine.metrics.limits.hit("sessions_max")
        return QUOTA_EXCEEDED, "sessions_max is reached"
    if not packet.client_id and (packet.protocol_level == 3 or (packet.protocol_level == 4 and not packet.clean_start)):
        return CLIENT_IDENTIFIER_NOT_VALID, "an empty client identifier"  # [MQTT-3.1.3-8]
    if packet.client_id.startswith(RESERVED_CLIENT_IDS):
        return CLIENT_IDENTIFIER_NOT_VALID, "client identifiers that begin so are the server's own"
    # Bridges of Mosquitto tell of their end below $SYS: they are let in, their will is not published.
    topic_name = packet.will.topic_name if packet.will is not None else ""
    refuse_control_characters(topic_name)
    if topic_name and not topic_name.startswith("$SYS/") and engine.router.open_route(topic_name.encode()) is None:
        return NOT_AUTHORIZED, f"only the server publishes to {topic_name}"
    return None


def refuse_connect(connection: Connection, reason_code: int, text: str = "", packet_bytes_max: int = 0) -> None:
    """CONNACK with a reason, then the close. [MQTT-3.2.2-7]"""
    connection.engine.connect_refused(connection, connection.client_id, reason_word(reason_code))
    if connection.protocol_level != constants.LEVEL_5:
        reason_code = connack_code_3_1_1(reason_code)
    connack = Connack(False, reason_code)
    connection.outbox.append(connection.explained(encode_connack, connack, text, packet_bytes_max))
    connection.close(CloseReason.REFUSED)


def _session_expiry_s(connection: Connection, packet: Connect, properties: Properties, answer: Properties) -> int:
    longest_s = connection.engine.config.session_expiry_s_max
    if not connection.is_v5:
        return 0 if packet.clean_start else longest_s
    asked_s = properties.session_expiry_interval or 0
    if asked_s > longest_s:
        connection.engine.metrics.limits.hit("session_expiry_s_max")
        answer.session_expiry_interval = longest_s
        return longest_s
    return asked_s


def _set_keep_alive(connection: Connection, packet: Connect, answer: Properties) -> None:
    keep_alive_s = packet.keep_alive_s
    longest_s = connection.engine.config.keep_alive_s_max
    is_endless = keep_alive_s == 0 and longest_s < KEEP_ALIVE_S_MAX  # 0 is no limit at all
    if connection.is_v5 and (keep_alive_s > longest_s or is_endless):
        if not is_endless:
            connection.engine.metrics.limits.hit("keep_alive_s_max")
        keep_alive_s = answer.server_keep_alive = longest_s  # [MQTT-3.2.2-21]
    connection.keep_alive_s = keep_alive_s
    if keep_alive_s:
        connection.engine.file_timer(connection, connection.silence_s_max)
