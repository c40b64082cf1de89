"""`headrace` as users start it: what it prints, how it ends, and what stops it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.commands import RunningCommand
from tests.support.conditions import eventually
from tests.support.mosquitto import MOSQUITTO, MosquittoProcess, free_port
from tests.support.server import HEADRACE, ServerProcess

COMMAND_TIMEOUT_S = 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Started from nothing, as users start it."""
    with ServerProcess(tmp_path / "data", program=HEADRACE) as running:
        yield running


def headrace(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*HEADRACE, *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def test_serve_prints_addresses_streams_reach_and_ready(server: ServerProcess) -> None:
    lines = server.stdout_lines
    assert re.fullmatch(
        rf"Headrace \d+\.\d+\.\d+  data {server.data_directory}  no configuration file, defaults", lines[0]
    )
    assert lines[1:] == [
        f"mqtt       mqtt://127.0.0.1:{server.mqtt_port}",
        f"mqtt-ws    ws://127.0.0.1:{server.ws_port}/mqtt",
        f"dashboard  http://127.0.0.1:{server.http_port}/",
        "default    # -> sqlite, kept 24 h or 1 GiB, no records yet",
        "This computer only, because no users exist. For devices on your network: set `bind` and "
        "[auth] allow_anonymous = true in a configuration (config/lan.toml is an example)",
        "ready",
    ]


def test_restart_says_how_many_records_there_are(server: ServerProcess) -> None:
    for number in range(3):
        message = {"topic": "a", "payload": number, "qos": 1}
        assert httpx.post(f"{server.http_url}/api/v1/publish", json=message).status_code == 202
    server.restart()
    assert any(re.search(r"^default .*, 3 records since \d+ \w+ \d\d:\d\d$", line) for line in server.stdout_lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_exits_with_0(server: ServerProcess, number: signal.Signals) -> None:
    """With an MQTT client connected and a live reader open."""
    with (
        socket.create_connection(("127.0.0.1", server.mqtt_port)),
        httpx.stream("GET", f"{server.http_url}/api/v1/events?topic=%23", timeout=10) as live,
    ):
        assert live.status_code == 200
        server.process.send_signal(number)
        assert server.wait() == 0
    assert "Traceback" not in server.stderr_text


def test_sighup_reloads_the_log_level_and_names_what_waits(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", config='[log]\nlevel = "info"\n') as server:
        file = tmp_path / "data.toml"
        file.write_text('[log]\nlevel = "warn"\n[live]\nfeeders = 2\n', encoding="utf-8")
        server.process.send_signal(signal.SIGHUP)
        _wait_for(server, "these changes need a restart  keys=live")
        file.write_text('[log]\nlevel = "warn"\nformat = "json"\n', encoding="utf-8")
        server.process.send_signal(signal.SIGHUP)
        _wait_for(server, "these changes need a restart  keys=log.format\n")
        file.write_text('[log]\nlevle = "debug"\n', encoding="utf-8")
        server.process.send_signal(signal.SIGHUP)
        _wait_for(server, 'the configuration was not reloaded: .* has no key "levle"')
        assert server.is_running


def _wait_for(server: ServerProcess, pattern: str) -> None:
    found = threading.Event()
    for _ in range(200):
        if re.search(pattern, server.stderr_text):
            return
        found.wait(0.05)
    raise AssertionError(f"{pattern!r} is not in\n{server.stderr_text}")


def test_log_may_be_json(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", arguments=("--log", "json")) as server:
        server.terminate()
    assert '"level":"info","part":"server","message":"stopping"' in server.stderr_text


@pytest.mark.parametrize(("flag", "port"), [("--mqtt", "mqtt_port"), ("--ws", "ws_port"), ("--http", "http_port")])
def test_port_in_use_names_the_process_and_another_port(
    shared_server: ServerProcess, tmp_path: Path, flag: str, port: str
) -> None:
    taken = getattr(shared_server, port)
    free = {"--mqtt": "127.0.0.1:0", "--ws": "127.0.0.1:0", "--http": "127.0.0.1:0", flag: f"127.0.0.1:{taken}"}
    arguments = [part for pair in free.items() for part in pair]
    ended = headrace("serve", "--data", str(tmp_path), *arguments)
    assert ended.returncode == 1
    assert re.search(
        rf"^error: port {taken} on 127\.0\.0\.1 is in use by .+ \(pid {shared_server.pid}\)\. "
        rf"Stop it, or choose another: headrace serve {flag} 127\.0\.0\.1:{taken + 1}$",
        ended.stderr,
        re.MULTILINE,
    )
    assert "Traceback" not in ended.stderr


def test_second_server_on_a_data_directory_is_refused_with_the_pid_of_the_first(shared_server: ServerProcess) -> None:
    addresses = ("--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--http", "127.0.0.1:0")
    ended = headrace("serve", "--data", str(shared_server.data_directory), *addresses)
    assert ended.returncode == 1
    assert f"is in use by headrace (pid {shared_server.pid}, since " in ended.stderr


def test_bad_key_is_exit_code_2_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('[[streams]]\nname = "t"\ntopics = ["a"]\nretension = {}\n')
    ended = headrace("serve", "-c", "headrace.toml", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == (
        'error: headrace.toml line 4: [[streams]] has no key "retension". Did you mean "retention"?\n'
    )


@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_simulate_publishes_for_its_duration_and_exits_with_0(shared_server: ServerProcess, transport: str) -> None:
    url = shared_server.ws_url if transport == "ws" else f"mqtt://127.0.0.1:{shared_server.mqtt_port}"
    options = ("--devices", "5", "--rate", "50", "--seed", "9", "--transport", transport, "--duration", "1")
    ended = headrace("simulate", "--broker", url, *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    sent = re.search(r"sent (\d+) messages, (\d+) acknowledged", ended.stdout)
    assert sent is not None
    assert int(sent[1]) >= int(sent[2]) >= 40


def test_simulate_with_one_seed_sends_the_same_twice(server: ServerProcess) -> None:
    url = f"mqtt://127.0.0.1:{server.mqtt_port}"
    options = ("--devices", "4", "--rate", "40", "--seed", "3", "--duration", "1")
    sent = []
    for _ in range(2):
        since = len(_building_records(server))
        assert headrace("simulate", "--broker", url, *options).returncode == 0
        sent.append(_building_records(server)[since:])
    shortest = min(len(each) for each in sent)
    assert shortest >= 30
    assert sent[0][:shortest] == sent[1][:shortest]


def _building_records(server: ServerProcess) -> list[tuple[str, object]]:
    query = {"topic": "building/#", "limit": "1000"}
    records = httpx.get(f"{server.http_url}/api/v1/streams/default/records", params=query).json()["records"]
    found = [(record["topic"], record["payload"]) for record in records]
    return [each for each in found if not each[0].endswith("/status")]


def test_simulate_plays_an_export_again(server: ServerProcess, tmp_path: Path) -> None:
    payloads = [{"temp": 21.5}, "two\nlines", 7]
    for payload in payloads:
        message = {"topic": "first/a", "payload": payload, "qos": 1}
        assert httpx.post(f"{server.http_url}/api/v1/publish", json=message).status_code == 202
    query = {"topic": "first/#", "format": "csv"}
    exported = httpx.get(f"{server.http_url}/api/v1/streams/default/records", params=query).text
    (tmp_path / "export.csv").write_text(exported.replace("first/a", "second/a"), encoding="utf-8", newline="")
    url = f"mqtt://127.0.0.1:{server.mqtt_port}"
    ended = headrace("simulate", "--from", str(tmp_path / "export.csv"), "--broker", url)
    assert (ended.returncode, ended.stderr) == (0, "")
    query = {"topic": "second/#"}
    records = httpx.get(f"{server.http_url}/api/v1/streams/default/records", params=query).json()["records"]
    assert [record["payload"] for record in records] == payloads


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_that_is_stopped_says_what_it_has_sent(shared_server: ServerProcess, number: signal.Signals) -> None:
    url = f"mqtt://127.0.0.1:{shared_server.mqtt_port}"
    seed = f"4{number:d}"
    with RunningCommand("simulate", "--broker", url, "--devices", "2", "--rate", "100", "--seed", seed) as running:
        eventually(lambda: _devices(shared_server, f"sim{seed}"))
        running.send(number)
        code = running.wait()
    assert (code, running.stderr) == (130, "")
    sent = re.search(r"\nsent (\d+) messages, (\d+) acknowledged\n", running.stdout)
    assert sent is not None
    assert int(sent[1]) == int(sent[2]) > 0


def _devices(server: ServerProcess, prefix: str) -> list[object]:
    """Those whose client ids begin so; other tests have left many more."""
    devices = httpx.get(f"{server.http_url}/api/v1/devices", params={"after": prefix}).json()["devices"]
    return [each for each in devices if each["client_id"].startswith(prefix)]


def test_simulate_with_a_bad_row_is_exit_code_2_with_its_line(shared_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("time,topic,payload\n0,bad/1,a\n1,bad/#,b\n")
    url = f"mqtt://127.0.0.1:{shared_server.mqtt_port}"
    ended = headrace("simulate", "--from", str(tmp_path / "r.csv"), "--broker", url)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f'error: {tmp_path / "r.csv"} line 3: nothing can be published to "bad/#": ')


@pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="mosquitto is not installed")
def test_simulate_signs_in_with_user_and_password_of_the_url(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "anna", "p@ss"], check=True)
    port = free_port()
    config = f"allow_anonymous false\npassword_file {passwords}\nlistener {port} 127.0.0.1\n"
    options = ("--devices", "1", "--rate", "20", "--duration", "0.3")
    with MosquittoProcess(tmp_path, config, port):
        refused = headrace("simulate", "--broker", f"mqtt://anna:wrong@127.0.0.1:{port}", *options)
        accepted = headrace("simulate", "--broker", f"mqtt://anna:p%40ss@127.0.0.1:{port}", *options)
    assert refused.returncode == 1
    assert "refused a device: not authorized" in refused.stderr
    assert "wrong" not in refused.stdout + refused.stderr
    assert (accepted.returncode, accepted.stderr) == (0, "")


def test_simulate_without_a_broker_is_exit_code_1() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        ended = headrace("simulate", "--broker", f"mqtt://127.0.0.1:{port}", "--duration", "1")
    assert ended.returncode == 1
    assert f"error: no broker answers at mqtt://127.0.0.1:{port}: connection refused." in ended.stderr


def test_demo_has_a_fleet_and_weather_and_takes_them_with_it(tmp_path: Path) -> None:
    addresses = ("--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--http", "127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "demo", "--devices", "10", "--data", str(tmp_path), *addresses],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        head = [process.stdout.readline().rstrip() for _ in range(3)]
        assert re.fullmatch(
            rf"Headrace \S+  data {tmp_path}  demo   mqtt://127\.0\.0\.1:\d+   fleet 10 devices, 100 msg/s, seed 1",
            head[0],
        )
        opened = re.fullmatch(
            r"Open  (http://127\.0\.0\.1:\d+)/ +stop with Ctrl-C; your own server: headrace serve", head[1]
        )
        assert opened is not None
        assert head[2] == "ready"
        live = f"{opened[1]}/api/v1/events?topic=weather/seattle/temperature"
        with httpx.stream("GET", live, timeout=20) as stream:
            first = next(line for line in stream.iter_lines() if line.startswith("data:") and "temp_c" in line)
        assert '"recorded":"2010-' in first
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=COMMAND_TIMEOUT_S)
        assert process.returncode == 0, stderr
        assert "Traceback" not in stderr
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
