"""A pytest plugin (entry point `headrace`): the fixture `headrace_broker`, a real broker on a free port.

It runs in a thread with an event loop of its own, so tests may block, use threads, or have a loop themselves. Nothing
of the broker is loaded before a test asks for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from broker.config import BrokerConfig
    from broker.hooks import Client, Hooks, Publishes
    from broker.server import Broker

MESSAGES_MAX = 100_000
"""Of a test's messages the newest are kept."""

STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class PublishedMessage:
    """What a client has published."""

    topic_name: str
    payload: bytes
    qos: int
    retain: bool
    client_id: str


class BrokerThread:
    """A broker in a thread of its own. `messages` are what clients published, in order, whether anyone subscribed."""

    def __init__(self, config: BrokerConfig, hooks: Hooks) -> None:
        self._config = config
        self._hooks = hooks
        self._thread = threading.Thread(target=self._run, name="headrace-broker", daemon=True)
        self._is_ready = threading.Event()
        self._error: BaseException | None = None
        self._broker: Broker
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._has_new = threading.Condition()
        self.messages: deque[PublishedMessage] = deque(maxlen=MESSAGES_MAX)
        self.host = "127.0.0.1"
        self.port = 0
        self.url = ""

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised again in the thread that waits for `_is_ready`
            self._error = error
            self._is_ready.set()

    async def _serve(self) -> None:
        from broker.server import Broker

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with Broker(self._config, hooks=replace(self._hooks, on_publish=self._on_publish)) as self._broker:
            listening = self._broker.listening[0]
            self.host, self.port, self.url = listening.host, listening.port, listening.url
            self._is_ready.set()
            await self._stopping.wait()

    def _on_publish(self, client: Client, publishes: Publishes) -> None:
        if self._hooks.on_publish is not None:
            self._hooks.on_publish(client, publishes)
        passed = [
            PublishedMessage(message.topic_name, message.payload, message.qos, message.retain, client.client_id)
            for row, message in enumerate(publishes)
            if row not in publishes.verdicts
        ]
        with self._has_new:
            self.messages.extend(passed)
            self._has_new.notify_all()

    def publish(self, topic_name: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> int:
        """Publish as the server; returns the number of sessions that it went to.

        Raises:
            MqttError: the topic name is not valid.
        """

        async def publish() -> int:
            return self._broker.publish(topic_name, payload, qos=qos, retain=retain)[1]

        return asyncio.run_coroutine_threadsafe(publish(), self._loop).result(STOP_TIMEOUT_S)

    def wait_for(self, topic_filter: str, count: int = 1, timeout_s: float = 10) -> list[PublishedMessage]:
        """The messages that the filter takes, as soon as there are `count`; what clients published before counts.

        Raises:
            TimeoutError: there were fewer after `timeout_s`.
        """
        from broker.topics.names import matches

        deadline = time.monotonic() + timeout_s
        with self._has_new:
            while True:
                found = [message for message in self.messages if matches(topic_filter, message.topic_name)]
                if len(found) >= count:
                    return found
                if not self._has_new.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{len(found)} of {count} messages on {topic_filter} in {timeout_s} s")

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_TIMEOUT_S)
        if self._error is not None:
            raise self._error


@pytest.fixture
def headrace_broker_config() -> BrokerConfig:
    """Settings of `headrace_broker`; override it to have others (a port of 0 takes a free one)."""
    from broker.config import BrokerConfig

    return BrokerConfig(tcp_bind=("127.0.0.1", 0))


@pytest.fixture
def headrace_broker_hooks() -> Hooks:
    """Hooks of `headrace_broker`; override it to have some. They are called in the broker's thread."""
    from broker.hooks import Hooks

    return Hooks()


@pytest.fixture
def headrace_broker(headrace_broker_config: BrokerConfig, headrace_broker_hooks: Hooks) -> Iterator[BrokerThread]:
    """A broker for one test, on a free port: `host`, `port`, `url`, `publish`, `messages`, `wait_for`."""
    with BrokerThread(headrace_broker_config, headrace_broker_hooks) as running:
        yield running
