"""Driver of mosquitto_sub and mosquitto_pub, which take no commands: it starts them, and reads what they print.

mosquitto_sub connects and subscribes in one, so a client that has only connected has a subscription that nothing
matches, and each further command to it starts another mosquitto_sub with the same client identifier.
"""

from __future__ import annotations

import re
import subprocess
import threading
from typing import Any

from tests.interoperability.python.lines import TIMEOUT_S, answer_commands, say

STOP_TIMEOUT_S = 5.0
"""mosquitto_sub says DISCONNECT in its signal handler, and stands still when that comes while it writes."""
SEPARATOR = "\x1f"
FIELDS = {
    "topic": "%t",
    "payload": "%x",
    "qos": "%q",
    "retain": "%r",
    "content_type": "%C",
    "correlation_data": "%D",
    "message_expiry_interval": "%E",
    "payload_format_indicator": "%F",
    "user_properties": "%P",
    "response_topic": "%R",
    "subscription_identifiers": "%S",
}
FORMAT = SEPARATOR.join(FIELDS.values())
NUMBERS = {"message_expiry_interval", "payload_format_indicator"}

CONNACK = re.compile(r"received CONNACK \((\d+)\)")
SUBSCRIBED = re.compile(r"^Subscribed \(mid: \d+\): (.+)")
UNSUBACK = re.compile(r"received UNSUBACK")
ACKNOWLEDGED = re.compile(r"received (?:PUBACK|PUBREC) \(Mid: \d+(?:, RC:(\d+))?")


class MosquittoClient:
    """What a mosquitto_sub has to be started with, and the one that runs."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.name = command["client"]
        self.version = {"3.1": "31", "3.1.1": "311", "5": "5"}[command["version"]]
        self.port = command["port"]
        self.client_id = command["client_id"]
        self.is_clean = command["clean"]
        self.filters: dict[str, list[str]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._has_line = threading.Condition()
        self._reader: threading.Thread | None = None
        self._connect = ["-i", self.client_id, "-k", str(command["keep_alive"])]
        if not self.is_clean:
            self._connect.append("-c")
        self._connect += property_arguments("CONNECT", command["properties"])
        if will := command["will"]:
            text = bytes.fromhex(will["payload"]).decode()
            self._connect += ["--will-topic", will["topic"], "--will-payload", text, "--will-qos", str(will["qos"])]
            self._connect += ["--will-retain"] if will["retain"] else []
            self._connect += property_arguments("WILL", will["properties"])

    def connect(self, command: dict[str, Any]) -> dict[str, Any]:
        """CONNECT and CONNACK; whether there was a session mosquitto_sub does not print."""
        self._start()
        reason = int(self._wait_for(CONNACK)[1])
        if reason == 0:
            self._wait_for(SUBSCRIBED)
        return {"event": "connected", "reason": reason, "session_present": None, "properties": {}}

    def subscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """Another mosquitto_sub with one more filter."""
        self._stop()
        arguments = ["-q", str(command["qos"]), *property_arguments("SUBSCRIBE", command["properties"])]
        arguments += ["--retain-as-published"] if command["retain_as_published"] else []
        self.filters.pop(command["filter"], None)
        self.filters[command["filter"]] = arguments
        self._start()
        return {"event": "suback", "reason": int(self._wait_for(SUBSCRIBED)[1].split(", ")[-1])}

    def unsubscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        """Another mosquitto_sub without the filter; it prints no reason."""
        self._stop()
        self.filters.pop(command["filter"], None)
        self._start("-U", command["filter"])
        self._wait_for(SUBSCRIBED)
        self._wait_for(UNSUBACK)
        return {"event": "unsuback", "reason": None}

    def publish(self, command: dict[str, Any]) -> dict[str, Any]:
        """A mosquitto_pub, with a client identifier of its own."""
        payload = bytes.fromhex(command["payload"])
        arguments = [*(["-s"] if payload else ["-n"]), *(["-r"] if command["retain"] else [])]
        arguments += property_arguments("PUBLISH", command["properties"])
        found = ACKNOWLEDGED.search(self._run_mosquitto_pub(command, payload, *arguments))
        return {"event": "puback", "reason": int(found[1] or 0) if found else None}

    def burst(self, command: dict[str, Any]) -> dict[str, Any]:
        """A mosquitto_pub that is given a line for each."""
        lines = b"".join(bytes.fromhex(payload) + b"\n" for payload in command["payloads"])
        self._run_mosquitto_pub(command, lines, "-l")
        return {"event": "published"}

    def _run_mosquitto_pub(self, command: dict[str, Any], stdin: bytes, *arguments: str) -> str:
        line = ["mosquitto_pub", "-d", "-p", str(self.port), "-V", self.version]
        line += ["-t", command["topic"], "-q", str(command["qos"]), *arguments]
        done = subprocess.run(line, input=stdin, capture_output=True, timeout=TIMEOUT_S)
        printed = (done.stdout + done.stderr).decode()
        if done.returncode != 0:
            raise RuntimeError(printed)
        return printed

    def disconnect(self, command: dict[str, Any]) -> dict[str, Any]:
        """SIGTERM, on which mosquitto_sub sends DISCONNECT."""
        self._stop()
        return {"event": "disconnected"}

    def _start(self, *arguments: str) -> None:
        self._lines = []
        filters = self.filters or {f"nothing/{self.client_id}": ["-q", "0"]}
        # One QoS, one set of options for all: they are those of the last filter.
        options = list(filters.values())[-1]
        self._process = subprocess.Popen(
            [
                # stdbuf: into a pipe mosquitto_sub would keep its debug lines back.
                *("stdbuf", "-oL", "mosquitto_sub", "-d", "-p", str(self.port), "-V", self.version, "-F", FORMAT),
                *self._connect,
                *(word for topic_filter in filters for word in ("-t", topic_filter)),
                *options,
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._reader is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(TIMEOUT_S)
            self._reader.join(TIMEOUT_S)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if SEPARATOR in line:
                self._tell(line.removesuffix("\n").split(SEPARATOR))
            else:
                with self._has_line:
                    self._lines.append(line.rstrip("\n"))
                    self._has_line.notify_all()
        process.stdout.close()
        if self._process is process and any("(0)" in line for line in self._lines if "CONNACK" in line):
            say("closed", client=self.name, reason=None)

    def _tell(self, values: list[str]) -> None:
        fields = dict(zip(FIELDS, values, strict=True))
        properties: dict[str, Any] = {}
        for name in list(FIELDS)[4:]:
            text = fields[name]
            if name == "subscription_identifiers" and text:
                properties[name] = [int(number) for number in text.split()]
            elif name == "user_properties" and text:
                properties[name] = [pair.split(":", 1) for pair in text.split(" ")]
            elif name == "correlation_data" and text:
                properties[name] = text.encode("utf-8", "surrogateescape").hex()
            elif text:
                properties[name] = int(text) if name in NUMBERS else text
        say(
            "message",
            client=self.name,
            topic=fields["topic"],
            payload=fields["payload"],
            qos=int(fields["qos"]),
            retain=fields["retain"] == "1",
            properties=properties,
        )

    def _wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return next(filter(None, map(pattern.search, self._lines)), None)

        with self._has_line:
            match = self._has_line.wait_for(found, TIMEOUT_S)
        if match is None:
            raise TimeoutError(f"no {pattern.pattern} in {self._lines}")
        return match


def property_arguments(packet: str, properties: dict[str, Any] | None) -> list[str]:
    """`-D packet name value` for each."""
    arguments = []
    for name, value in (properties or {}).items():
        if name == "session_expiry_interval":  # which -c sets too
            arguments += ["-x", str(value)]
            continue
        word = name.replace("_", "-").replace("properties", "property").replace("identifiers", "identifier")
        if word == "user-property":
            for pair in value:
                arguments += ["-D", packet, word, *pair]
        else:
            text = bytes.fromhex(value).decode() if name == "correlation_data" else str(value)
            arguments += ["-D", packet, word, text]
    return arguments


def main() -> None:
    """Drive as many clients as the commands name."""
    clients: dict[str, MosquittoClient] = {}

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "connect":
            clients[command["client"]] = MosquittoClient(command)
        found: dict[str, Any] = getattr(clients[command["client"]], command["do"])(command)
        return found

    answer_commands(answer)
    for client in clients.values():
        client.disconnect({})


if __name__ == "__main__":
    main()
