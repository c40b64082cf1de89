"""Broker: opens the listeners, ticks, drains and closes. It runs alone in any asyncio program, or under the bridge.

async with Broker(BrokerConfig(tcp_bind=("127.0.0.1", 0))) as broker:
    print(broker.listening)
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import select
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from broker.codec.packets import Publish
from broker.config import BrokerConfig
from broker.engine import Engine
from broker.inlet import Inlet
from broker.listeners.quiet import QuietConnections
from broker.listeners.tcp import TcpConnection, set_options
from broker.loop_delay import LoopDelay
from broker.store import Durable
from broker.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from broker.codec.properties import Properties
    from broker.hooks import Hooks
    from broker.inlet import InletOwner
    from broker.listeners.websocket import WebSocketListener
    from broker.metrics import Metrics
    from broker.presence import PresenceWatch
    from broker.publish_run import PublishRun
    from broker.replay import ReplaySource
    from broker.sessions.session import Session
    from broker.sink import Origin, Sink
    from broker.store import Store
    from broker.topics.tree import TopicWalk

log = logging.getLogger("headrace.mqtt")

LISTEN_BACKLOG = 1024


def resident_bytes() -> int:
    """Memory of this process, where Linux tells it; else the most that it has had."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


@dataclass(frozen=True, slots=True)
class Listening:
    """One address that the broker listens on."""

    kind: str
    """`mqtt`, `mqtt-ws`, …"""
    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as clients write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}/mqtt" if self.kind == "mqtt-ws" else f"mqtt://{host}:{self.port}"


class Broker:
    """The MQTT broker in the running event loop."""

    def __init__(
        self,
        config: BrokerConfig | None = None,
        sink: Sink | None = None,
        replay_source: ReplaySource | None = None,
        store: Store | None = None,
        watch: PresenceWatch | None = None,
        *,
        hooks: Hooks | None = None,
    ) -> None:
        self.config = config if config is not None else BrokerConfig()
        self.engine = Engine(self.config, sink, replay_source, store, watch)
        if hooks is not None:
            self.engine.hooks = hooks
        self.listening: list[Listening] = []
        self.turn: Turn
        self.loop_delay: LoopDelay
        """How late the event loop is."""
        self.refused_handshakes: dict[int, int] = {}
        """WebSocket handshakes that were refused, by HTTP status."""
        self.websockets: WebSocketListener | None = None
        """The WebSocket port, which can take over connections of other ports too."""
        self._servers: list[asyncio.AbstractServer] = []
        self._quiet: QuietConnections | None = None
        self._tick: asyncio.TimerHandle | None = None

    @property
    def metrics(self) -> Metrics:
        """Counters since the start."""
        return self.engine.metrics

    @property
    def port(self) -> int:
        """The port that MQTT over TCP is listened on.

        Raises:
            RuntimeError: there is no such listener, or the broker has not started.
        """
        for listening in self.listening:
            if listening.kind == "mqtt":
                return listening.port
        raise RuntimeError("the broker does not listen on TCP")

    async def start(self) -> None:
        """Take what the store has kept, and open the listeners; `listening` then has their real ports.

        Raises:
            OSError: an address cannot be listened on; what was opened is closed again.
        """
        loop = asyncio.get_running_loop()
        self.listening.clear()
        self.turn = Turn(self.engine, loop)
        self._restore()
        self.turn.schedule()
        self.engine.heap_bytes = resident_bytes
        self.engine.sys_topics.publish()
        self.loop_delay = delay = LoopDelay(loop)
        late_s = self.config.loop_delay_ms_max / 1000
        self.engine.is_late = lambda: delay.now_s > late_s
        delay.start()
        try:
            if self.config.tcp_bind is not None:
                host, port = self.config.tcp_bind
                server = await loop.create_server(
                    lambda: TcpConnection(self.turn), host, port, backlog=LISTEN_BACKLOG, start_serving=False
                )
                for listening_socket in server.sockets:
                    set_options(listening_socket)
                if hasattr(select, "epoll"):
                    self._accept_quietly(loop, server)
                else:
                    await server.start_serving()
                self._opened("mqtt", server)
            if self.config.websocket_bind is not None:
                # Only who listens on WebSocket needs its library.
                from broker.listeners.websocket import start_websocket_server

                self.websockets = websockets = await start_websocket_server(self.turn, self.config)
                self.refused_handshakes = websockets.refused_handshakes
                self._opened("mqtt-ws", websockets)
        except OSError:
            await self.stop()
            raise
        self._tick = loop.call_later(1, self._on_tick)

    def _accept_quietly(self, loop: asyncio.AbstractEventLoop, server: asyncio.AbstractServer) -> None:
        """Listen on the sockets that a server has bound."""
        sockets = [bound.dup() for bound in server.sockets]  # type: ignore[attr-defined]
        for each in sockets:
            each.setblocking(False)
            each.listen(LISTEN_BACKLOG)
        self._quiet = QuietConnections(self.turn, loop, sockets)

    def _restore(self) -> None:
        """Take what the store has. Nothing of it is garbage, and to look for some doubles the time."""
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self.engine.restore(self.turn.now_ms())
        finally:
            if was_enabled:
                gc.enable()

    def _opened(self, kind: str, server: asyncio.AbstractServer) -> None:
        self._servers.append(server)
        for listening_socket in server.sockets:  # type: ignore[attr-defined]
            host, port = listening_socket.getsockname()[:2]
            self.listening.append(Listening(kind, host, port))
            self.engine.port_by_transport["websocket" if kind == "mqtt-ws" else "tcp"] = port

    def _on_tick(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(1, self._on_tick)
        try:
            self.engine.tick(self.turn.now_ms())
        except Exception:  # a bug of ours must not stop the clock for everyone
            log.exception("the tick failed")
        self.turn.schedule()

    def publish(
        self,
        topic_name: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
        client_id: str = "",
        origin: Origin | None = None,
    ) -> tuple[PublishRun, int]:
        """Publish from inside the process; returns the run and how many subscriptions it matches.

        With an `origin` and QoS 1 or 2, `origin.acknowledge` is called once the run is stored.

        Raises:
            MqttError: the topic name is not valid.
            ValueError: there is no such QoS.
        """
        if qos not in (0, 1, 2):
            raise ValueError(f"QoS is 0, 1 or 2, not {qos}")
        packet = Publish(topic_name, payload, qos, retain, False, 1 if qos else 0, properties)
        outcome = self.engine.publish(packet, client_id, self.turn.now_ms(), origin)
        self.turn.schedule()
        return outcome

    def open_inlet(self, client_id: str, owner: InletOwner) -> Inlet:
        """A way in for publishes that this process takes from another broker."""
        return Inlet(self.engine, client_id, owner)

    def publish_own(
        self,
        rows: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        is_routed: bool = True,
        is_stored: bool = True,
    ) -> list[PublishRun]:
        """Publish rows (topic name, payload) of the server itself; see `Engine.publish_own`."""
        self.engine.now_ms = self.turn.now_ms()
        self.turn.schedule()
        return self.engine.publish_own(rows, retain=retain, is_routed=is_routed, is_stored=is_stored)

    def session(self, client_id: str) -> Session | None:
        """A client's session, to look at."""
        return self.engine.sessions.session_by_client_id.get(client_id)

    def close_by_admin(self, client_id: str) -> bool:
        """Close a client's connection (MQTT 5: 0x98); False when it has none."""
        self.engine.now_ms = self.turn.now_ms()
        self.turn.schedule()
        return self.engine.close_by_admin(client_id)

    def forget_by_admin(self, client_id: str) -> bool:
        """End a client's connection and session; False when it has no session."""
        self.engine.now_ms = self.turn.now_ms()
        self.turn.schedule()
        return self.engine.forget_by_admin(client_id)

    def retained_topics(self, topic_filter: str) -> TopicWalk[str]:
        """The topics with a retained message that a filter takes, but for those that the server makes itself.

        Piece by piece: between two of them there may be whole turns of the loop.
        """
        return self.engine.retained.walk(topic_filter)

    def clear_retained(self, topic_names: Sequence[str]) -> None:
        """Forget the retained messages of some topics; nobody is told, as when one expires."""
        self.engine.retained.clear(topic_names)
        self.turn.schedule()

    async def changes_durable(self) -> None:
        """Until all that has changed so far of what the store keeps is durable."""
        if self.engine.store is None:
            return
        durable = asyncio.Event()
        self.engine.changes.append(Durable(durable.set))
        self.turn.schedule()
        await durable.wait()

    async def stop_listening(self) -> None:
        """Take no new connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._quiet is not None:
            self._quiet.close()

    async def stop(self) -> None:
        """Close every connection (MQTT 5 clients are told), then the listeners."""
        await self.stop_listening()
        self.loop_delay.stop()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self.engine.shut_down()
        self.turn.run()
        if self.engine.connections:
            all_gone = asyncio.Event()
            self.engine.on_last_lost = all_gone.set
            try:
                await asyncio.wait_for(all_gone.wait(), self.config.close_timeout_s)
            except TimeoutError:
                log.warning("%d peers did not take their last bytes", len(self.engine.connections))
        for connection in list(self.engine.connections):
            connection.cut()
        if self._quiet is not None:
            self._quiet.end()
            self._quiet = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
