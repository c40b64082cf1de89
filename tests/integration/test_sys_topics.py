"""`$SYS/broker/…` of the real server beside Mosquitto's own."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.conditions import eventually
from tests.support.server import ServerProcess

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("mosquitto", "mosquitto_sub")),
    reason="mosquitto and mosquitto_sub are not both installed",
)


@pytest.fixture
def mosquitto_port(tmp_path: Path) -> Iterator[int]:
    """A Mosquitto of the test's own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    file = tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n")
    process = subprocess.Popen(["mosquitto", "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


NAMES = 53
"""That Mosquitto 2.0 has, its memory included."""


def told(port: int, count: int) -> dict[str, str]:
    """The first `count` messages below `$SYS`, by topic name; fewer when no more come in some seconds."""
    command = ["mosquitto_sub", "-p", str(port), "-t", "$SYS/#", "-F", "%t=%p", "-C", str(count), "-W", "3"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_names_and_forms_are_those_of_mosquitto(mosquitto_port: int, shared_server: ServerProcess) -> None:
    eventually(lambda: told(mosquitto_port, 1) != {}, what="Mosquitto")
    theirs = told(mosquitto_port, NAMES)
    ours = told(shared_server.mqtt_port, NAMES)
    assert len(theirs) >= 45
    assert theirs.keys() <= ours.keys()
    for name, value in theirs.items():
        form = re.sub(r"[0-9]+", "9", value.replace("mosquitto", "headrace"))
        assert re.sub(r"[0-9]+", "9", ours[name])[: len(form)] == form, name


def test_http_and_streams_know_nothing_of_them(shared_server: ServerProcess) -> None:
    with urlopen(f"{shared_server.http_url}/api/v1/topics?topic=$SYS/%23") as answer:
        assert json.load(answer)["topics"] == []
