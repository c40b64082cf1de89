"""Text forms read back: whatever a payload holds, records end where they end and stand where they stand."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.encoding import encode_rows
from bridge.replay.server import message_of
from bridge.replay.text_records import CSV, NDJSON, RecordText, csv_fields
from tests.unit.test_encoding import make_run

NASTY = [
    b'{"a":1}',
    b"",
    b"plain",
    b'"',
    b'""\r\n,"',
    b"two\r\nlines\r\n",
    b'\n","offset":5,"partition":1}\n',
    b'{"epoch":"x","partition":3,"offset":7}',
    b'{"time":"2000-01-01T00:00:00.000Z","encoding":"base64","qos":2}',
    b"\xff\xfe\x00",
    b"\x00nul",
    b" spaced ",
    "é\u2028\x85".encode(),
]
V5_PROPERTIES = bytes([0x26]) + b'\0\x03k"1' + b'\0\x0dv,"offset":7}'

payloads = st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(NASTY)), min_size=1, max_size=8)


def encoded(form: RecordText, rows: list[bytes], *, is_v5: bool = False) -> list[bytes]:
    run = make_run(
        [("a/é", payload) for payload in rows],
        flags=[2] * len(rows),
        properties=[V5_PROPERTIES] * len(rows) if is_v5 else None,
    )
    return encode_rows(form.encoding, "telemetry", "k3", run)


@pytest.mark.parametrize("form", [NDJSON, CSV], ids=["ndjson", "csv"])
@given(rows=payloads, is_v5=st.booleans())
@example(rows=NASTY, is_v5=True)
@example(rows=NASTY, is_v5=False)
def test_records_come_apart_as_they_were_joined(form: RecordText, rows: list[bytes], is_v5: bool) -> None:
    records = encoded(form, rows, is_v5=is_v5)
    data = b"".join(records)
    assert list(form.records(data)) == records
    assert form.count(data) == len(records)
    assert form.last(data) == records[-1]
    assert [form.place(record) for record in records] == [("k3", 0, 99 + row) for row in range(len(rows))]
    assert {form.time_ms(record) for record in records} == {1795374000123}


@pytest.mark.parametrize("form", [NDJSON, CSV], ids=["ndjson", "csv"])
@given(rows=payloads, data=st.data())
def test_data_cut_anywhere_ends_in_whole_records(form: RecordText, rows: list[bytes], data: st.DataObject) -> None:
    records = encoded(form, rows)
    text = b"".join(records)
    cut = data.draw(st.integers(0, len(text)))
    whole = form.whole_bytes(text[:cut])
    ends = [sum(map(len, records[:count])) for count in range(len(records) + 1)]
    assert whole == max(end for end in ends if end <= cut)


@given(rows=payloads)
@example(rows=NASTY)
def test_csv_rows_are_the_messages_byte_for_byte(rows: list[bytes]) -> None:
    messages = [message_of(csv_fields(record)) for record in encoded(CSV, rows, is_v5=True)]
    assert [message.payload for message in messages] == rows
    assert {(each.topic, each.qos, each.retain, each.time_ms) for each in messages} == {
        ("a/é", 1, False, 1795374000123)
    }
    assert messages[0].properties == {"user_properties": [['k"1', 'v,"offset":7}']]}
