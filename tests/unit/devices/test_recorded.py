"""Recordings: CSV rows as messages with their own timing."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from devices.fleet import recorded_turns
from devices.recorded import Recorded, RecordingInvalid, epoch_s, read_recording


def rows(tmp_path: Path, text: str) -> list[Recorded]:
    """The rows of a recording with this text."""
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    return list(read_recording(path))


def test_rows_keep_their_spacing_and_their_bytes(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        "time,topic,payload\n2026-01-01T00:00:00Z,a/b,1\n"
        '2026-01-01T00:00:01.500Z,a/b,"{""x"": ""ü""}"\n1767225603000,a/c,"two\nlines"\n',
    )
    assert [row.after_s for row in found] == [0, 1.5, 3.0]
    assert [row.payload for row in found] == [b"1", '{"x": "ü"}'.encode(), b"two\nlines"]


def test_row_before_its_predecessor_comes_at_once(tmp_path: Path) -> None:
    found = rows(tmp_path, "time,topic,payload\n2000,a,1\n3000,a,2\n1000,a,3\n4000,a,4\n")
    assert [row.after_s for row in found] == [0, 1, 1, 2]


def test_columns_of_an_export_are_used(tmp_path: Path) -> None:
    head = "time,topic,payload,encoding,qos,retain,client_id,stream,epoch,partition,offset,properties\n"
    row = "2026-01-01T00:00:00Z,a,AAE=,base64,2,true,p1,default,s1,0,7,\n"
    assert rows(tmp_path, head + row) == [Recorded(0, "a", b"\x00\x01", 2, True)]


def test_qos_of_the_row_wins_over_that_of_the_command(tmp_path: Path) -> None:
    found = rows(tmp_path, "time,topic,payload,qos\n0,a,1,2\n1,a,2,\n")
    assert [turn.qos for turn in recorded_turns(found, 1)] == [2, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("time,topic\n", "has no column payload"),
        ("", "has no column time, topic, payload"),
        ("time,topic,payload\nyesterday,a,1\n", 'line 2: "yesterday" is neither an RFC 3339 time nor epoch milli'),
        ("time,topic,payload\n0,,1\n", "line 2: it has no topic"),
        ("time,topic,payload,qos\n0,a,1,3\n", "line 2: its QoS is not 0, 1 or 2."),
        ("time,topic,payload,qos\n0,a,1,high\n", "line 2: its QoS is not 0, 1 or 2."),
        ("time,topic,payload,encoding\n0,a,%%%,base64\n", "line 2: its payload is not base64."),
        ("time,topic,payload\n0,a,1\n0,c/+,1\n", 'line 3: nothing can be published to "c/+": a topic has no + or #'),
        ("time,topic,payload\n0,#,1\n", 'line 2: nothing can be published to "#"'),
        ("time,topic,payload\n0,a\x01b,1\n", 'line 2: nothing can be published to "a?b"'),
        (f"time,topic,payload\n0,{'ä' * 32_768},1\n", "line 2: its topic has more than 65,535 bytes."),
        ("topic,payload,time\na,1\n", "line 2: it has no time."),
        ("time,payload,topic\n0,1\n", "line 2: it has no topic."),
        ("time,topic,payload\n0,a\n", "line 2: it has no payload."),
        (f"time,topic,payload\n{'9' * 5_000},a,1\n", "neither an RFC 3339 time nor epoch milli"),
        ("time,topic,payload\n²,a,1\n", "neither an RFC 3339 time nor epoch milli"),
    ],
)
def test_file_that_cannot_be_played(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecordingInvalid, match=r"r\.csv") as caught:
        rows(tmp_path, text)
    assert expected in str(caught.value)


def test_mark_of_the_byte_order_before_the_header_is_no_part_of_it(tmp_path: Path) -> None:
    assert [row.topic for row in rows(tmp_path, "\ufefftime,topic,payload\n0,a,1\n")] == ["a"]


def test_longest_topic_is_played(tmp_path: Path) -> None:
    assert len(rows(tmp_path, f"time,topic,payload\n0,{'a' * 65_535},1\n")[0].topic) == 65_535


def test_large_recording_is_read_as_it_is_played(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with path.open("w") as file:
        file.write("time,topic,payload\n")
        file.writelines(f"{number},a,{number}\n" for number in range(50_000))
    assert [row.payload for row in islice(read_recording(path), 2)] == [b"0", b"1"]


def test_times() -> None:
    assert epoch_s("1767225600123") == 1_767_225_600.123
    assert epoch_s("2026-01-01T01:00:00+01:00") == epoch_s("2026-01-01T00:00:00Z") == 1_767_225_600
