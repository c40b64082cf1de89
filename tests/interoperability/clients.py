"""The client libraries, what each speaks, and what it cannot do, with the reason."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from scripts.interoperability import ToolchainMissing, go_driver, javascript_driver


@dataclass(frozen=True)
class Library:
    """A client library with its driver."""

    name: str
    versions: tuple[str, ...]
    transports: tuple[str, ...]
    command: Callable[[], list[str]]
    """The command that runs its driver; may have to build it first."""
    cannot: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Scenarios that are not run with it, and why; `test_… 5` is that of one version."""
    does_not_tell: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What it does not show to its program, and in which way; the scenarios are run without looking at that."""

    def can(self, scenario: str, version: str) -> bool:
        """Whether it is run with it."""
        return scenario not in self.cannot and f"{scenario} {version}" not in self.cannot


def python_driver(module: str) -> Callable[[], list[str]]:
    """The command for a driver that is written in Python."""
    return lambda: [sys.executable, "-m", f"tests.interoperability.python.{module}"]


def mosquitto_driver() -> list[str]:
    """The command for mosquitto_sub and mosquitto_pub.

    Raises:
        ToolchainMissing: one of the programs is not installed.
    """
    missing = [name for name in ("mosquitto_pub", "mosquitto_sub", "stdbuf") if shutil.which(name) is None]
    if missing:
        raise ToolchainMissing(f"not installed: {', '.join(missing)} (Debian, Ubuntu: mosquitto-clients, coreutils)")
    return python_driver("mosquitto_driver")()


NO_HAND_ON_ACKNOWLEDGEMENTS = "acknowledges by itself"
ONE_BY_ONE = "looks at no message before the one before it is acknowledged"
NO_EMPTY_TOPIC = "takes no message with an empty topic name"
TAKES_OVER_IN_ITS_TURN = "mosquitto_sub connects again at once, and only MQTT 5 can tell it not to"

LIBRARIES = (
    Library(
        name="paho-mqtt",
        versions=("3.1", "3.1.1", "5"),
        transports=("tcp", "websocket"),
        command=python_driver("paho_driver"),
    ),
    Library(
        name="aiomqtt",
        versions=("3.1", "3.1.1", "5"),
        transports=("tcp", "websocket"),
        command=python_driver("aiomqtt_driver"),
        cannot={
            "test_topic_alias_of_the_server": NO_EMPTY_TOPIC,
            "test_receive_maximum_holds_messages_back": NO_HAND_ON_ACKNOWLEDGEMENTS,
            "test_unacknowledged_messages_come_again": NO_HAND_ON_ACKNOWLEDGEMENTS,
            "test_session_ends_at_a_disconnect_that_says_so": "sends DISCONNECT without properties",
        },
        does_not_tell={
            "session present": "keeps CONNACK's flags to itself",
            "connack properties": "keeps them to itself",
            "puback reason": "publish() returns nothing",
            "unsuback reason": "unsubscribe() returns nothing",
        },
    ),
    Library(
        name="mosquitto",
        versions=("3.1", "3.1.1", "5"),
        transports=("tcp",),
        command=mosquitto_driver,
        cannot={
            "test_no_will_after_disconnect 5": "mosquitto_sub asks for its will when a signal ends it",
            "test_take_over 3.1": TAKES_OVER_IN_ITS_TURN,
            "test_take_over 3.1.1": TAKES_OVER_IN_ITS_TURN,
            "test_topic_alias_of_the_server": NO_EMPTY_TOPIC,
            "test_no_local": "mosquitto_sub has no option for it, and does not publish",
            "test_retain_handling": "mosquitto_sub has no option for it in version 2.0",
            "test_topic_alias_of_the_client": "mosquitto_pub sends one message with a topic",
            "test_receive_maximum_holds_messages_back": NO_HAND_ON_ACKNOWLEDGEMENTS,
            "test_unacknowledged_messages_come_again": NO_HAND_ON_ACKNOWLEDGEMENTS,
            "test_session_ends_at_a_disconnect_that_says_so": "mosquitto_sub is ended by a signal",
            "test_server_chooses_the_client_identifier": "mosquitto_sub chooses one itself",
            "test_silent_clients_keep_their_connections_by_pings": "mosquitto_sub has a shortest keep alive of 5 s",
        },
        does_not_tell={
            "session present": "mosquitto_sub does not print it",
            "connack properties": "mosquitto_sub does not print them",
            "unsuback reason": "mosquitto_sub does not print it",
            "close reason": "mosquitto_sub ends with it, or connects again",
        },
    ),
    Library(
        name="paho.mqtt.golang",
        versions=("3.1", "3.1.1"),
        transports=("tcp", "websocket"),
        command=go_driver,
    ),
    Library(
        name="paho.golang",
        versions=("5",),
        transports=("tcp", "websocket"),
        command=go_driver,
        cannot={
            "test_will_with_properties_and_without_delay": "leaves out the content type of a will",
        },
    ),
    Library(
        name="mqtt.js",
        versions=("3.1", "3.1.1", "5"),
        transports=("tcp", "websocket"),
        command=javascript_driver,
        cannot={
            "test_receive_maximum_holds_messages_back": ONE_BY_ONE,
            "test_unacknowledged_messages_come_again": ONE_BY_ONE,
        },
    ),
)
