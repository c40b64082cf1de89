"""docs/library.md is true: its examples run as they stand there, with clients we did not write."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from broker import Broker, BrokerConfig, Hooks, Properties
from tests.support import mqtt_wire as wire
from tests.support.conditions import eventually_async

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PROGRAM, HOOKS, TEST, CONFTEST = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
LOOPBACK = BrokerConfig(tcp_bind=("127.0.0.1", 0))


async def test_program_of_the_documentation() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode()
        host, port = url.strip().removeprefix("mqtt://").split(":")
        async with aiomqtt.Client(host, int(port)) as client:
            await client.subscribe("house/#", qos=1)
            message = await asyncio.wait_for(anext(aiter(client.messages)), 10)
            assert (str(message.topic), message.payload, message.retain) == ("house/lamp", b"on", True)
    finally:
        process.terminate()
        await process.wait()


async def test_hooks_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(HOOKS, "docs/library.md", "exec"), names)
    async with Broker(LOOPBACK, hooks=names["hooks"]) as broker:
        stranger = aiomqtt.Client("127.0.0.1", broker.port, username="eve", protocol=aiomqtt.ProtocolVersion.V5)
        with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
            await stranger.__aenter__()
        lamp = aiomqtt.Client(
            "127.0.0.1",
            broker.port,
            identifier="l1",
            username="lamp-1",
            password="secret",
            protocol=aiomqtt.ProtocolVersion.V5,
        )
        async with lamp as client:
            codes = [await client.subscribe(name, qos=2) for name in ("secret/x", "#", "devices/#")]
            assert [[code.value for code in each] for each in codes] == [[0x87], [0x87], [1]]  # type: ignore[union-attr]
            await client.publish("devices/lamp-1/large", b"x" * 20_000, qos=1)
            await client.publish("devices/lamp-2/state", b"on", qos=1)
            await client.publish("devices/lamp-1/state", b"on", qos=1)
            message = await asyncio.wait_for(anext(aiter(client.messages)), 10)
            assert (str(message.topic), message.qos) == ("devices/lamp-1/state", 1)
        await eventually_async(lambda: not broker.engine.connections)
        assert broker.metrics.refused_publishes == {"hook": 2}
    assert capsys.readouterr().out == "l1 has gone: client_disconnected\n"


async def test_hooks_hear_of_every_client_at_the_end() -> None:
    gone: list[str] = []
    broker = Broker(LOOPBACK, hooks=Hooks(on_close=lambda client, reason: gone.append(f"{client.client_id} {reason}")))
    await broker.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(wire.connect("a"))
    assert (await reader.readexactly(1))[0] >> 4 == wire.CONNACK
    await broker.stop()
    assert gone == ["a server_shutdown"]
    writer.close()
    await writer.wait_closed()


async def test_broker_starts_again_after_its_end_and_keeps_its_sessions() -> None:
    broker = Broker(LOOPBACK)
    async with broker, aiomqtt.Client("127.0.0.1", broker.port, identifier="a", clean_session=False) as client:
        await client.subscribe("house/#", qos=1)
    properties = Properties()
    properties.content_type = "text/plain"
    async with broker:
        assert [listening.kind for listening in broker.listening] == ["mqtt"]
        broker.publish("house/lamp", b"on", qos=1, properties=properties)
        v5 = aiomqtt.ProtocolVersion.V5
        async with aiomqtt.Client("127.0.0.1", broker.port, identifier="a", clean_start=False, protocol=v5) as client:
            message = await asyncio.wait_for(anext(aiter(client.messages)), 10)
            assert (message.payload, message.qos) == (b"on", 1)
            assert message.properties is not None
            assert message.properties.ContentType == "text/plain"


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    async def start_twice() -> None:
        async with Broker(LOOPBACK) as broker:
            taken = BrokerConfig(tcp_bind=("127.0.0.1", broker.port))
            second = Broker(taken)
            with pytest.raises(OSError, match="in use"):
                await second.start()

    asyncio.run(start_twice())


def test_broker_without_tcp_has_no_port() -> None:
    with pytest.raises(RuntimeError):
        _ = Broker(BrokerConfig(tcp_bind=None)).port


def test_plugin_is_found_by_pytest() -> None:
    (entry,) = entry_points(group="pytest11", name="headrace")
    assert entry.value == "broker.pytest_plugin"


def test_plugin_loads_nothing_of_the_broker_before_it_is_asked_for() -> None:
    loaded = "import broker.pytest_plugin, sys; print(*(name for name in sys.modules if name.startswith('broker.')))"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "broker.pytest_plugin" in names
    assert not {"broker.engine", "broker.server", "broker.routing", "broker.listeners"} & set(names)


def test_fixture_in_the_tests_of_others(pytester: pytest.Pytester) -> None:
    """The example; other settings and hooks; and a broker that cannot start."""
    pytester.makeini("""
        [pytest]
        addopts = --import-mode=importlib
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
    """)
    files = {
        "example/test_example.py": TEST,
        "settings/conftest.py": CONFTEST,
        "settings/test_settings.py": """
            import aiomqtt
            import pytest

            async def test_who_is_let_in(headrace_broker, headrace_broker_config):
                assert headrace_broker_config.queued_messages_max == 10
                async with aiomqtt.Client(headrace_broker.host, headrace_broker.port, username="ada") as client:
                    await client.subscribe("a")
                    assert headrace_broker.publish("a", b"from the server", qos=1) == 1
                    assert (await anext(aiter(client.messages))).payload == b"from the server"
                with pytest.raises(aiomqtt.MqttError):
                    await aiomqtt.Client(headrace_broker.host, headrace_broker.port, username="eve").__aenter__()

            def test_waiting_ends(headrace_broker):
                assert not headrace_broker.messages
                with pytest.raises(TimeoutError, match="0 of 1"):
                    headrace_broker.wait_for("#", timeout_s=0.01)
                assert headrace_broker.url == f"mqtt://{headrace_broker.host}:{headrace_broker.port}"
        """,
        "taken/conftest.py": """
            import socket, pytest
            from broker import BrokerConfig

            @pytest.fixture
            def headrace_broker_config():
                with socket.create_server(("127.0.0.1", 0)) as taken:
                    yield BrokerConfig(tcp_bind=taken.getsockname())
        """,
        "taken/test_taken.py": "def test_never_runs(headrace_broker): ...",
    }
    for name, text in files.items():
        file = pytester.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*OSError*in use*"])
