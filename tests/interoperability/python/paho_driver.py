"""Driver of paho-mqtt, the reference client: MQTT 3.1.1 and 5, TCP and WebSocket."""

from __future__ import annotations

import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.interoperability.python.lines import TIMEOUT_S, answer_commands, say
from tests.interoperability.python.paho_properties import from_paho, to_paho

VERSIONS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5": paho.MQTTv5}


class PahoClient:
    """One connection. Callbacks come on its network thread, commands on the main thread, one at a time."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.name = command["client"]
        self.is_v5 = command["version"] == "5"
        self.is_leaving = False
        self.aliases: dict[int, str] = {}
        self.holds_back = command["hold_acknowledgements"]
        self.held: list[paho.MQTTMessage] = []
        self._answers: dict[object, Any] = {}
        self._has_answer = threading.Condition()
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            command["client_id"],
            clean_session=None if self.is_v5 else command["clean"],
            protocol=MQTTProtocolVersion(VERSIONS[command["version"]]),
            transport="tcp" if command["transport"] == "tcp" else "websockets",
            reconnect_on_failure=False,
            manual_ack=self.holds_back,
        )
        self.paho.on_connect = lambda _, __, flags, reason, properties: self._note(
            "connack", (flags, reason, properties)
        )
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_message = self._on_message
        self.paho.on_publish = lambda _, __, mid, reason, ___: self._note(("publish", mid), reason.value)
        self.paho.on_subscribe = lambda _, __, mid, reasons, ___: self._note(("subscribe", mid), reasons[0].value)
        self.paho.on_unsubscribe = lambda _, __, mid, reasons, ___: self._note(
            ("unsubscribe", mid), reasons[0].value if reasons else None
        )

    def connect(self, command: dict[str, Any]) -> dict[str, Any]:
        """CONNECT and CONNACK."""
        if will := command["will"]:
            self.paho.will_set(
                will["topic"],
                bytes.fromhex(will["payload"]),
                will["qos"],
                will["retain"],
                to_paho("WILLMESSAGE", will["properties"]),
            )
        if command["transport"] == "websocket":
            self.paho.ws_set_options(path="/mqtt")
        more = {}
        if self.is_v5:
            more = {"clean_start": command["clean"], "properties": to_paho("CONNECT", command["properties"])}
        self.paho.connect("127.0.0.1", command["port"], command["keep_alive"], **more)
        self.paho.loop_start()
        flags, reason, properties = self._wait("connack")
        self.is_leaving = reason.is_failure
        return {
            "event": "connected",
            "reason": reason.value,
            "session_present": flags.session_present,
            "properties": from_paho(properties),
        }

    def subscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """SUBSCRIBE and SUBACK."""
        if self.is_v5:
            options = SubscribeOptions(
                command["qos"],
                command["no_local"],
                command["retain_as_published"],
                command["retain_handling"],
            )
            _, mid = self.paho.subscribe(
                command["filter"], options=options, properties=to_paho("SUBSCRIBE", command["properties"])
            )
        else:
            _, mid = self.paho.subscribe(command["filter"], command["qos"])
        return {"event": "suback", "reason": self._wait(("subscribe", mid))}

    def unsubscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """UNSUBSCRIBE and UNSUBACK."""
        _, mid = self.paho.unsubscribe(command["filter"])
        return {"event": "unsuback", "reason": self._wait(("unsubscribe", mid))}

    def publish(self, command: dict[str, Any]) -> dict[str, Any]:
        """PUBLISH and the whole exchange that follows."""
        info = self.paho.publish(
            command["topic"],
            bytes.fromhex(command["payload"]),
            command["qos"],
            command["retain"],
            to_paho("PUBLISH", command["properties"]),
        )
        reason = self._wait(("publish", info.mid))
        return {"event": "puback", "reason": reason if command["qos"] else None}

    def burst(self, command: dict[str, Any]) -> dict[str, Any]:
        """Many at once; the library has 20 under way and keeps the rest."""
        payloads = [bytes.fromhex(payload) for payload in command["payloads"]]
        infos = [self.paho.publish(command["topic"], payload, command["qos"]) for payload in payloads]
        for info in infos:
            self._wait(("publish", info.mid))
        return {"event": "published"}

    def acknowledge(self, command: dict[str, Any]) -> dict[str, Any]:
        """Acknowledge what was held back, and from now on everything at once."""
        self.holds_back = False
        for message in self.held:
            self.paho.ack(message.mid, message.qos)
        return {"event": "acknowledged"}

    def disconnect(self, command: dict[str, Any]) -> dict[str, Any]:
        """DISCONNECT."""
        self.is_leaving = True
        self.paho.disconnect(properties=to_paho("DISCONNECT", command["properties"]))
        self.paho.loop_stop()
        return {"event": "disconnected"}

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        properties = from_paho(getattr(message, "properties", None))
        topic = message.topic
        if alias := properties.pop("topic_alias", None):  # paho-mqtt leaves them to the program
            topic = topic or self.aliases[alias]
            self.aliases[alias] = topic
        say(
            "message",
            client=self.name,
            topic=topic,
            payload=bytes(message.payload).hex(),
            qos=message.qos,
            retain=bool(message.retain),
            properties=properties,
        )
        if self.holds_back:
            self.held.append(message)
        elif message.qos:
            self.paho.ack(message.mid, message.qos)

    def _on_disconnect(self, _: Any, __: Any, flags: Any, reason: Any, ___: Any) -> None:
        if not self.is_leaving:
            say("closed", client=self.name, reason=reason.value if flags.is_disconnect_packet_from_server else None)

    def _note(self, key: object, value: Any) -> None:
        with self._has_answer:
            self._answers[key] = value
            self._has_answer.notify_all()

    def _wait(self, key: object) -> Any:
        with self._has_answer:
            if not self._has_answer.wait_for(lambda: key in self._answers, TIMEOUT_S):
                raise TimeoutError(f"no answer for {key}")
            return self._answers.pop(key)


def main() -> None:
    """Drive as many clients as the commands name."""
    clients: dict[str, PahoClient] = {}

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "connect":
            clients[command["client"]] = PahoClient(command)
        found: dict[str, Any] = getattr(clients[command["client"]], command["do"])(command)
        return found

    answer_commands(answer)


if __name__ == "__main__":
    main()
