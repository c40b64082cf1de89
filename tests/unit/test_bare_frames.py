"""Records as another broker gets them: its topics, one QoS, no fields of ours but the mark."""

from __future__ import annotations

import pytest

from bridge.bare_frames import BareFrames
from bridge.history.scan import BareForm, PublishForm
from bridge.publish_frames import user_property
from broker.codec.decode import Decoder
from broker.codec.packets import Publish
from broker.codec.properties import Properties
from broker.replay import ReplayPiece
from tests.unit.test_publish_frames import PLACE, TIME_MS, publish, run_of


def sent(packets: list[Publish], form: PublishForm, *, is_v5: bool = True) -> tuple[list[Publish], int]:
    """What goes out, and how many were left out."""
    assert form.bare is not None
    run = run_of(packets, is_v5=is_v5)
    frames = BareFrames(form, form.bare, "telemetry", TIME_MS)
    rows = range(len(packets))
    items = frames.encode("k3", run, rows)
    frames.keep(run, rows, items, PLACE)
    columns = frames.columns()
    data = b"".join(items)
    if columns.rows is not None:
        data = ReplayPiece(data, frames.count, columns.rows, form.is_v5, str).numbered(0, frames.count, 1)
    decoder = Decoder(268_435_455)
    decoder.protocol_level = 5 if form.is_v5 else 4
    return decoder.feed(data), columns.left_out  # type: ignore[return-value]


@pytest.mark.parametrize("is_v5", [True, False])
@pytest.mark.parametrize("goes_as_v5", [True, False])
@pytest.mark.parametrize("qos", [0, 1])
def test_every_record_has_the_qos_that_is_asked_for(is_v5: bool, goes_as_v5: bool, qos: int) -> None:
    stored = [publish(number, number % 3, retain=number % 2 == 0) for number in range(40)]
    form = PublishForm(goes_as_v5, qos, True, bare=BareForm("a/", "far/"))
    found, _ = sent(stored, form, is_v5=is_v5)
    assert found == [
        Publish(
            "far/" + each.topic_name.removeprefix("a/"), each.payload, qos, each.retain, False, index + 1 if qos else 0
        )
        for index, each in enumerate(stored)
    ]


def test_properties_stay_and_the_mark_stands_behind_them() -> None:
    properties = Properties()
    properties.content_type = "text/plain"
    properties.user_properties = [("k", "v")]
    bare = BareForm(properties=user_property("headrace-from", "me"))
    stored = [Publish("a", b"1", 1, packet_id=7, properties=properties), Publish("a", b"2")]
    found, _ = sent(stored, PublishForm(True, 1, bare=bare))
    assert [each.properties.user_properties for each in found if each.properties] == [
        [("k", "v"), ("headrace-from", "me")],
        [("headrace-from", "me")],
    ]
    assert found[0].properties is not None
    assert found[0].properties.content_type == "text/plain"


def test_what_cannot_go_is_left_out_and_counted() -> None:
    stored = [Publish("a", b"x" * 300), Publish("a", b"y"), Publish("a/" + "t" * 60_000, b"z")]
    found, left_out = sent(stored, PublishForm(True, 1, packet_bytes_max=200, bare=BareForm()))
    assert ([each.payload for each in found], left_out) == ([b"y"], 2)
    found, left_out = sent(stored, PublishForm(True, 1, bare=BareForm(prefix="p" * 6_000)))
    assert ([each.payload for each in found], left_out) == ([b"x" * 300, b"y"], 1)


def test_runs_of_the_clients_that_came_from_there_are_left_out() -> None:
    bare = BareForm(left_out_client_ids=frozenset({"$ingest/x"}))
    frames = BareFrames(PublishForm(True, 1, bare=bare), bare, "telemetry", TIME_MS)
    packets = [Publish("a", b"1")]
    assert frames.leaves_out(run_of(packets, is_v5=True, client_id="$ingest/x"))
    assert not frames.leaves_out(run_of(packets, is_v5=True))
