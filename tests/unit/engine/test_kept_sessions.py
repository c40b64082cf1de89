"""Kept sessions over an end of the server: what the store is told, what waits for it, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.codec.packets import Disconnect, Publish, Suback, Unsuback, Unsubscribe, Will
from broker.codec.properties import Properties
from tests.support.engine_client import NOW_MS, EngineClient, HoldingSink, HoldingStore, make_engine, turn
from tests.unit.engine.test_engine import of_type, payloads, publish

if TYPE_CHECKING:
    from broker.engine import Engine


def expiry(seconds: int) -> Properties:
    properties = Properties()
    properties.session_expiry_interval = seconds
    return properties


def will(payload: bytes = b"gone", delay_s: int | None = None) -> Will:
    properties = Properties()
    properties.will_delay_interval = delay_s
    properties.content_type = "text"
    return Will("will/t", payload, 1, False, properties)


def kept_client(engine: Engine, client_id: str = "k", expiry_s: int = 100, **more: object) -> EngineClient:
    client = EngineClient(engine, 5)
    client.connect(client_id, clean=False, properties=expiry(expiry_s), **more)
    return client


def died(store: HoldingStore) -> None:
    """kill -9: what was not durable is gone."""
    store.changes.clear()


class TestAnswers:
    """What has been acknowledged holds."""

    def test_suback_and_unsuback_of_a_kept_session_wait_for_the_store(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        client = kept_client(engine)
        assert client.subscribe("a/#", 1) == []
        store.commit()
        turn(engine)
        assert of_type(client.received(), Suback)
        client.send(Unsubscribe(2, ["a/#"], Properties()))
        assert client.received() == []
        store.commit()
        turn(engine)
        assert of_type(client.received(), Unsuback)
        assert not store.subscriptions

    def test_suback_comes_before_what_is_retained(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        publisher = EngineClient(engine)
        publisher.connect("p")
        publisher.send(publish("a/b", b"kept", retain=True))
        client = kept_client(engine)
        client.subscribe("a/#", 1)
        store.commit()
        turn(engine)
        assert [type(packet) for packet in client.received()] == [Suback, Publish]

    def test_a_clean_session_does_not_wait(self) -> None:
        store = HoldingStore()
        client = EngineClient(make_engine(store=store))
        client.connect("c")
        assert of_type(client.subscribe("a/#", 1), Suback)
        assert not store.changes

    def test_a_connection_that_has_lost_its_session_gets_no_answer(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        first = kept_client(engine)
        first.subscribe("a", 1)
        second = kept_client(engine)
        first.received()
        store.commit()
        turn(engine)
        assert first.received() == []
        assert second.received() == []


class TestRestart:
    """After a kill, or a stop: what the store had."""

    def test_subscriptions_are_there_with_their_options(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        client = kept_client(engine)
        client.subscribe("a/+", 2, no_local=True, retain_as_published=True, retain_handling=2)
        before = engine.sessions.session_by_client_id["k"].subscriptions
        store.commit()
        engine = make_engine(store=store)
        assert engine.sessions.session_by_client_id["k"].subscriptions == before
        again = EngineClient(engine, 5)
        assert again.connect("k", clean=False, properties=expiry(100)).session_present
        publisher = EngineClient(engine)
        publisher.connect("p")
        publisher.send(publish("a/1", b"x"), publish("b", b"y"))
        assert payloads(again.received()) == [b"x"]

    def test_what_was_not_durable_is_not(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine).subscribe("a", 1)
        died(store)
        assert not EngineClient(make_engine(store=store), 5).connect("k", clean=False).session_present

    def test_clean_start_forgets(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine).subscribe("a", 1)
        store.commit()
        EngineClient(make_engine(store=store), 5).connect("k", clean=True)
        store.commit()
        assert not store.sessions
        assert not store.subscriptions

    def test_a_session_that_is_kept_no_more_leaves_the_store(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        client = kept_client(engine)
        store.commit()
        client.send(Disconnect(0, expiry(0)))
        turn(engine)
        store.commit()
        assert not store.sessions

    def test_expiry_runs_while_the_server_is_down(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine, expiry_s=100).lose()
        store.commit()
        assert store.sessions["k"].expires_at_ms == NOW_MS + 101_000
        engine = make_engine(store=store)
        for second in range(1, 101):
            engine.tick(NOW_MS + 1_000 * second)
        assert len(engine.sessions) == 1
        engine.tick(NOW_MS + 101_000)
        assert len(engine.sessions) == 0

    def test_one_that_was_connected_expires_from_the_restart_on(self) -> None:
        store = HoldingStore()
        kept_client(make_engine(store=store), expiry_s=100)
        store.commit()
        engine = make_engine(store=store)
        turn(engine)
        store.commit()
        assert store.sessions["k"].expires_at_ms == NOW_MS + 100_000
        assert len(engine.sessions) == 1

    def test_unreleased_packet_ids_belong_to_it_again(self) -> None:
        sink, store = HoldingSink(), HoldingStore()
        sink.stored_ids["k"] = {7}
        kept_client(make_engine(sink, store))
        store.commit()
        engine = make_engine(sink, store)
        client = kept_client(engine)
        client.send(publish("a", b"again", 2, 7))  # [MQTT-4.3.3-10] without DUP: the session is the same
        assert not sink.runs


class TestWills:
    """[MQTT-3.1.2-8], [MQTT-3.1.3-9]"""

    def watched(self, store: HoldingStore) -> tuple[Engine, EngineClient]:
        engine = make_engine(store=store)
        watcher = EngineClient(engine, 5)
        watcher.connect("w")
        watcher.subscribe("will/#", 1)
        return engine, watcher

    def test_a_will_of_a_connection_that_the_crash_cut_is_published_at_the_start(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        watcher = kept_client(engine, "w")
        watcher.subscribe("will/#", 1)
        kept_client(engine, will=will())
        store.commit()
        engine = make_engine(store=store)
        turn(engine)
        store.commit()
        assert payloads(kept_client(engine, "w").received()) == [b"gone"]
        assert store.sessions["k"].will is None

    def test_a_delayed_one_waits_for_its_delay_and_for_the_client(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine, "late", will=will(b"late", 5))
        kept_client(engine, "back", will=will(b"back", 5))
        store.commit()
        engine, watcher = self.watched(store)
        kept_client(engine, "back")
        for second in range(1, 5):
            engine.tick(NOW_MS + 1_000 * second)
        turn(engine)
        assert payloads(watcher.received()) == []
        engine.tick(NOW_MS + 5_000)
        turn(engine)
        (found,) = of_type(watcher.received(), Publish)
        assert (found.payload, found.properties.content_type) == (b"late", "text")

    def test_a_delay_that_ran_before_the_restart_counts(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine, will=will(delay_s=5)).lose()
        store.commit()
        assert store.sessions["k"].will_due_ms == NOW_MS + 6_000
        engine, watcher = self.watched(store)
        for _ in range(6):
            engine.tick(NOW_MS)
        turn(engine)
        assert payloads(watcher.received()) == [b"gone"]

    def test_it_is_published_once(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        kept_client(engine, will=will(delay_s=1)).lose()
        engine.tick(NOW_MS + 1_000)
        turn(engine)
        store.commit()
        assert store.sessions["k"].will is not None
        engine.tick(NOW_MS + 2_000)
        turn(engine)
        store.commit()
        assert store.sessions["k"].will is None

    def test_after_a_goodbye_there_is_none(self) -> None:
        store = HoldingStore()
        engine = make_engine(store=store)
        client = kept_client(engine, will=will())
        client.send(Disconnect(0, Properties()))
        turn(engine)
        store.commit()
        assert store.sessions["k"].will is None
        _, watcher = self.watched(store)
        assert payloads(watcher.received()) == []
