"""What is due in a second, and that nothing is kept of clients that have gone."""

from __future__ import annotations

from broker.due import Due
from broker.engine import Engine
from tests.support.engine_client import EngineClient, make_engine


def test_items_are_due_in_their_second_and_leave_no_trace() -> None:
    due: Due[str] = Due()
    due.put("a", 3)
    due.put("b", 3)
    due.put("c", 4)
    due.discard("b", 3)
    due.discard("c", 5)
    assert len(due) == 2
    assert (due.take(2), due.take(3), due.take(3)) == ([], ["a"], [])
    due.discard("c", 4)
    assert (len(due), due.take(4)) == (0, [])


def looks(engine: Engine) -> int:
    return len(engine._looks)


def test_a_connection_that_is_lost_is_not_kept_for_its_keep_alive() -> None:
    """The longest keep alive is a look in 27 hours."""
    engine = make_engine()
    for number in range(10):
        client = EngineClient(engine)
        client.connect(f"p{number % 3}", keep_alive_s=65_535)  # most are taken over
        assert looks(engine) == len(engine.connections)
        if number % 2:
            client.lose()
    for connection in list(engine.connections):
        connection.lost()
    assert looks(engine) == 0


def test_a_session_whose_client_comes_back_waits_for_no_end() -> None:
    engine = make_engine(session_expiry_s_max=5)
    for _ in range(10):
        client = EngineClient(engine, 4)
        client.connect("p", clean=False)
        assert engine.sessions.expiring == 0
        client.lose()
        assert engine.sessions.expiring == 1
        engine.tick(0)
    for _ in range(5):  # one more than the interval: the second in which it left was not a whole one
        assert "p" in engine.sessions.session_by_client_id
        engine.tick(0)
    assert not engine.sessions.session_by_client_id
    assert engine.sessions.expiring == 0
