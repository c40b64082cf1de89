"""Topic names and topic filters: what is valid, and what matches what (MQTT 5 §4.7, §4.8.2).

`matches` is the plain model of matching; the tries of this package must agree with it.
"""

from __future__ import annotations

import re

from broker.codec.constants import STRING_BYTES_MAX
from broker.codec.errors import SharedFilterInvalid, TopicFilterInvalid, TopicNameInvalid
from broker.codec.primitives import decode_text

SHARE_PREFIX = "$share/"

LEVELS_MAX = 201
"""Levels of a topic name or filter (200 slashes, as in Mosquitto). One costs a peer a byte, us a node in the tries."""

_DISALLOWED = re.compile("[\x01-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def validate_topic_name(topic: bytes) -> str:
    """The topic name whose UTF-8 bytes these are.

    Raises:
        TopicNameInvalid: empty, with a wildcard, of too many levels or bytes. [MQTT-4.7.3-1] [MQTT-3.3.2-2]
            [MQTT-4.7.3-3]
        MalformedPacket: no UTF-8 string of MQTT. [MQTT-1.5.4-1] [MQTT-4.7.3-2]
    """
    topic_name = decode_text(topic)
    if not topic_name:
        raise TopicNameInvalid("empty topic name")
    if len(topic) > STRING_BYTES_MAX:
        raise TopicNameInvalid(f"topic name of more than {STRING_BYTES_MAX} bytes")
    if "+" in topic_name or "#" in topic_name:
        raise TopicNameInvalid("topic name with a wildcard")
    if topic_name.count("/") >= LEVELS_MAX:
        raise TopicNameInvalid(f"topic name of more than {LEVELS_MAX} levels")
    return topic_name


def validate_topic_filter(topic_filter: str) -> None:
    """Accept a topic filter, also one of a shared subscription (`$share/name/filter`).

    Raises:
        TopicFilterInvalid: it breaks a rule of §4.7 or §4.8.2, or has too many levels.
    """
    if topic_filter.startswith(SHARE_PREFIX) or topic_filter == SHARE_PREFIX[:-1]:
        _, topic_filter = split_shared(topic_filter)
    if not topic_filter:
        raise TopicFilterInvalid("empty topic filter")  # [MQTT-4.7.3-1]
    if "\0" in topic_filter:
        raise TopicFilterInvalid("topic filter with U+0000")  # [MQTT-4.7.3-2]
    hash_at = topic_filter.find("#")
    if hash_at >= 0 and (hash_at != len(topic_filter) - 1 or (hash_at > 0 and topic_filter[hash_at - 1] != "/")):
        raise TopicFilterInvalid("# is not a last level of its own")  # [MQTT-4.7.1-1]
    if "+" in topic_filter and any("+" in level and level != "+" for level in topic_filter.split("/")):
        raise TopicFilterInvalid("+ shares its level")  # [MQTT-4.7.1-2]
    if topic_filter.count("/") >= LEVELS_MAX:
        raise TopicFilterInvalid(f"topic filter of more than {LEVELS_MAX} levels")


def refuse_control_characters(topic: str) -> None:
    """Accept a name or filter of a client without control and non-characters.

    A server may refuse them, and Mosquitto does (§1.5.4). What others have stored may hold them.

    Raises:
        TopicNameInvalid: it holds one.
    """
    if has_control_characters(topic):
        raise TopicNameInvalid("a topic with a control character")


def has_control_characters(text: str) -> bool:
    """Whether a control or non-character is in it, which MQTT lets a server refuse (§1.5.4)."""
    return _DISALLOWED.search(text) is not None


def split_shared(topic_filter: str) -> tuple[str, str]:
    """Share name and topic filter of `$share/name/filter`; the share name is empty for any other filter.

    Raises:
        SharedFilterInvalid: a share without name or filter, or with + in the name. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        TopicFilterInvalid: a share with # in its name.
    """
    if not topic_filter.startswith(SHARE_PREFIX) and topic_filter != SHARE_PREFIX[:-1]:
        return "", topic_filter
    share_name, slash, shared_filter = topic_filter[len(SHARE_PREFIX) :].partition("/")
    if not share_name or not slash or not shared_filter:
        raise SharedFilterInvalid("shared subscription without a name or a filter")
    if "#" in share_name:  # no filter at all, whatever stands before it [MQTT-4.7.1-1]
        raise TopicFilterInvalid("# is not a last level of its own")
    if "+" in share_name:
        raise SharedFilterInvalid("share name with a wildcard")
    return share_name, shared_filter


def matches(topic_filter: str, topic_name: str) -> bool:
    """Whether a valid filter takes a valid topic name.

    `#` also takes the level above it, and no wildcard at the root takes a topic that begins with `$`. [MQTT-4.7.2-1]
    """
    if topic_name.startswith("$") and topic_filter[0] in "#+":
        return False
    filter_levels = topic_filter.split("/")
    name_levels = topic_name.split("/")
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index == len(name_levels) or (level != "+" and level != name_levels[index]):
            return False
    return len(filter_levels) == len(name_levels)
