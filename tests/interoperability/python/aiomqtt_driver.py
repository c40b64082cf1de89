"""Driver of aiomqtt: MQTT 3.1.1 and 5 in asyncio, TCP and WebSocket."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiomqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.interoperability.python.lines import TIMEOUT_S, say
from tests.interoperability.python.paho_properties import from_paho, to_paho

VERSIONS = {"3.1": aiomqtt.ProtocolVersion.V31, "3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}


class AiomqttClient:
    """One connection and the task that iterates over its messages."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.name = command["client"]
        self.is_v5 = command["version"] == "5"
        self.aliases: dict[int, str] = {}
        self._reading: asyncio.Task[None] | None = None
        will = command["will"]
        versioned: dict[str, Any] = {"clean_session": command["clean"]}
        if self.is_v5:
            versioned = {
                "clean_start": command["clean"],
                "properties": to_paho("CONNECT", command["properties"]),
            }
        self.aiomqtt = aiomqtt.Client(
            "127.0.0.1",
            command["port"],
            identifier=command["client_id"],
            protocol=VERSIONS[command["version"]],
            transport="tcp" if command["transport"] == "tcp" else "websockets",
            websocket_path="/mqtt" if command["transport"] == "websocket" else None,
            keepalive=command["keep_alive"],
            timeout=TIMEOUT_S,
            will=will
            and aiomqtt.Will(
                will["topic"],
                bytes.fromhex(will["payload"]),
                will["qos"],
                will["retain"],
                to_paho("WILLMESSAGE", will["properties"]),
            ),
            **versioned,
        )

    async def connect(self, command: dict[str, Any]) -> dict[str, Any]:
        """CONNECT and CONNACK; what CONNACK says beside its reason is not shown by aiomqtt."""
        answer = {"event": "connected", "session_present": None, "properties": {}}
        try:
            await self.aiomqtt.__aenter__()
        except aiomqtt.MqttCodeError as error:
            return {**answer, "reason": reason_value(error.rc)}
        self._reading = asyncio.create_task(self._read())
        return {**answer, "reason": 0}

    async def subscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """SUBSCRIBE and SUBACK."""
        if self.is_v5:
            options = SubscribeOptions(
                command["qos"],
                command["no_local"],
                command["retain_as_published"],
                command["retain_handling"],
            )
            reasons = await self.aiomqtt.subscribe(
                command["filter"], options=options, properties=to_paho("SUBSCRIBE", command["properties"])
            )
        else:
            reasons = await self.aiomqtt.subscribe(command["filter"], command["qos"])
        return {"event": "suback", "reason": reason_value(reasons[0])}

    async def unsubscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """UNSUBSCRIBE and UNSUBACK, whose reasons aiomqtt does not show."""
        await self.aiomqtt.unsubscribe(command["filter"])
        return {"event": "unsuback", "reason": None}

    async def publish(self, command: dict[str, Any]) -> dict[str, Any]:
        """PUBLISH and the whole exchange that follows, whose reason aiomqtt does not show."""
        await self.aiomqtt.publish(
            command["topic"],
            bytes.fromhex(command["payload"]),
            command["qos"],
            command["retain"],
            to_paho("PUBLISH", command["properties"]),
        )
        return {"event": "puback", "reason": None}

    async def burst(self, command: dict[str, Any]) -> dict[str, Any]:
        """Many at once; the library has 20 under way and keeps the rest."""
        payloads = [bytes.fromhex(payload) for payload in command["payloads"]]
        await asyncio.gather(*(self.aiomqtt.publish(command["topic"], each, command["qos"]) for each in payloads))
        return {"event": "published"}

    async def disconnect(self, command: dict[str, Any]) -> dict[str, Any]:
        """DISCONNECT."""
        if self._reading is not None:
            self._reading.cancel()
        await self.aiomqtt.__aexit__(None, None, None)
        return {"event": "disconnected"}

    async def _read(self) -> None:
        try:
            async for message in self.aiomqtt.messages:
                self._tell(message)
        except aiomqtt.MqttError as error:
            cause = error.__cause__
            reason = reason_value(cause.rc) if isinstance(cause, aiomqtt.MqttCodeError) else None
            say("closed", client=self.name, reason=reason)

    def _tell(self, message: aiomqtt.Message) -> None:
        properties = from_paho(message.properties)
        topic = message.topic.value
        if alias := properties.pop("topic_alias", None):
            self.aliases[alias] = topic
        assert isinstance(message.payload, bytes)
        say(
            "message",
            client=self.name,
            topic=topic,
            payload=message.payload.hex(),
            qos=message.qos,
            retain=message.retain,
            properties=properties,
        )


def reason_value(code: Any) -> int:
    """The number of a reason, which is a number or paho's `ReasonCode`."""
    return int(getattr(code, "value", code))


async def main() -> None:
    """Drive as many clients as the commands name."""
    clients: dict[str, AiomqttClient] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        try:
            if command["do"] == "connect":
                clients[command["client"]] = AiomqttClient(command)
            answer: dict[str, Any] = await getattr(clients[command["client"]], command["do"])(command)
        except Exception as error:
            answer = {"event": "failed", "error": repr(error)}
        say(id=command["id"], **answer)


if __name__ == "__main__":
    asyncio.run(main())
