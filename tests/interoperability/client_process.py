"""ClientProcess: a driver, that is a small program around a client library, and `Client`, one connection in it.

The words, a line of JSON each. Payloads and correlation data are hexadecimal, properties have the names of the MQTT
specification in lower case with underscores (`message_expiry_interval`), in each command that may have them; a
message has `subscription_identifiers`, a list.

Commands have `id`, `do` and `client`, a name for the connection; they are answered in order:

- `connect` (port, transport `tcp` or `websocket`, version, client_id, clean, keep_alive, will,
  hold_acknowledgements) → `connected` (reason, session_present, properties)
- `subscribe` (filter, qos, no_local, retain_as_published, retain_handling) → `suback` (reason)
- `unsubscribe` (filter) → `unsuback` (reason)
- `publish` (topic, payload, qos, retain) → `puback` (reason: of PUBACK or PUBREC), after the whole exchange
- `burst` (topic, payloads, qos) → `published`: the same without waiting for one before the next
- `acknowledge` → `acknowledged`: what `hold_acknowledgements` kept back, and from then on everything
- `disconnect` → `disconnected`

or with `failed` (error). What comes unasked has `client` and no `id`: `message` (topic, payload, qos, retain,
properties) and `closed` (reason), when the server ended the connection. What a library does not tell is null.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANSWER_TIMEOUT_S = 20.0
"""Longer than what a driver waits for the server, so that its words are heard."""


@dataclass(frozen=True)
class Message:
    """What a client got."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any] = field(default_factory=dict)


class CommandFailed(AssertionError):
    """The library raised an error, or the driver has gone."""


class ClientProcess:
    """A running driver. It ends by itself when its standard input does, and so with the tests."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # what it starts is killed with it
        )
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._has_news = threading.Condition()
        self._clients: dict[str, Client] = {}
        self._stderr = ""
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def send(self, do: str, client: Client, **values: Any) -> int:
        """Give a command; returns the number that its answer will have."""
        number = next(self._ids)
        if do == "connect":
            self._clients[client.name] = client
        line = json.dumps({"id": number, "do": do, "client": client.name, **values})
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return number

    def answer(self, number: int) -> dict[str, Any]:
        """Wait for the answer of a command.

        Raises:
            CommandFailed: it is an error, or none came.
        """
        with self._has_news:
            self._has_news.wait_for(lambda: number in self._answers or not self.is_running, ANSWER_TIMEOUT_S)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise CommandFailed(f"no answer; exit code {self._process.poll()}\n{self._stderr}")
        if answer["event"] == "failed":
            raise CommandFailed(f"{answer['error']}\n{self._stderr}")
        return answer

    @property
    def is_running(self) -> bool:
        """Whether the driver lives."""
        return self._process.poll() is None

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing is sent; `kill` ends it."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL to it and all that it started: connections break without DISCONNECT."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the driver did not end with its standard input\n{self._stderr}") from None
        self._end()

    def _end(self) -> None:
        self._process.wait(ANSWER_TIMEOUT_S)
        for reader in self._readers:
            reader.join(ANSWER_TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            with self._has_news:
                if "id" in event:
                    self._answers[event["id"]] = event
                else:
                    self._clients[event["client"]].take(event)
                self._has_news.notify_all()
        with self._has_news:
            self._has_news.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._stderr += line


class Client:
    """One connection of a client library to the server."""

    def __init__(self, process: ClientProcess, name: str) -> None:
        self.process = process
        self.name = name
        self.is_open = False
        self.reason: int = 0
        self.session_present: bool | None = None
        self.properties: dict[str, Any] = {}
        self.messages: list[Message] = []
        self.close_reasons: list[int | None] = []

    @property
    def received(self) -> list[tuple[str, bytes, int, bool]]:
        """Topic, payload, QoS and RETAIN of what came."""
        return [(one.topic, one.payload, one.qos, one.retain) for one in list(self.messages)]

    @property
    def payloads(self) -> list[bytes]:
        """Payloads of what came."""
        return [one.payload for one in list(self.messages)]

    def connect(self, **arguments: Any) -> None:
        """CONNECT and CONNACK, a refusal too."""
        answer = self._ask("connect", **arguments)
        self.reason = answer["reason"]
        self.session_present = answer["session_present"]
        self.properties = answer["properties"]
        self.is_open = self.reason == 0

    def subscribe(
        self,
        topic_filter: str,
        qos: int = 0,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        **properties: Any,
    ) -> int:
        """SUBSCRIBE; returns the reason of SUBACK."""
        answer = self._ask(
            "subscribe",
            filter=topic_filter,
            qos=qos,
            no_local=no_local,
            retain_as_published=retain_as_published,
            retain_handling=retain_handling,
            properties=properties,
        )
        reason: int = answer["reason"]
        return reason

    def unsubscribe(self, topic_filter: str) -> int | None:
        """UNSUBSCRIBE; returns the reason of UNSUBACK, if there is one."""
        reason: int | None = self._ask("unsubscribe", filter=topic_filter)["reason"]
        return reason

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, *, retain: bool = False, **properties: Any
    ) -> int | None:
        """PUBLISH and the whole exchange; returns the reason of PUBACK or PUBREC, if there is one."""
        return self.publish_all([(topic, payload)], qos, retain=retain, **properties)[0]

    def publish_all(
        self, messages: Sequence[tuple[str, bytes]], qos: int = 0, *, retain: bool = False, **properties: Any
    ) -> list[int | None]:
        """Publish topics and payloads, one behind the other."""
        numbers = [
            self.process.send(
                "publish",
                self,
                topic=topic,
                payload=payload.hex(),
                qos=qos,
                retain=retain,
                properties=properties,
            )
            for topic, payload in messages
        ]
        return [self.process.answer(number)["reason"] for number in numbers]

    def burst(self, topic: str, payloads: Sequence[bytes], qos: int) -> None:
        """Publish all at once, as far as the library lets its program, and wait for all exchanges."""
        self._ask("burst", topic=topic, payloads=[payload.hex() for payload in payloads], qos=qos)

    def acknowledge(self) -> None:
        """Acknowledge what was held back."""
        self._ask("acknowledge")

    def disconnect(self, **properties: Any) -> None:
        """DISCONNECT."""
        self.is_open = False
        self._ask("disconnect", properties=properties)

    def _ask(self, do: str, **values: Any) -> dict[str, Any]:
        return self.process.answer(self.process.send(do, self, **values))

    def take(self, event: dict[str, Any]) -> None:
        """Something came unasked (on the thread that reads)."""
        if event["event"] == "closed":
            self.is_open = False
            self.close_reasons.append(event["reason"])
        else:
            self.messages.append(
                Message(
                    event["topic"],
                    bytes.fromhex(event["payload"]),
                    event["qos"],
                    event["retain"],
                    event["properties"],
                )
            )
