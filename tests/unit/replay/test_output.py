"""An export's file and its bookmark: what is behind the bookmark is cut, and what is not ours is not touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.cursors import StreamPosition
from bridge.replay.bookmark import load_bookmark
from bridge.replay.output import FileOutput, bookmark_path
from bridge.replay.source import ReplayFailed

REQUEST: dict[str, Any] = {"stream": "telemetry", "topics": ["a/#"], "format": "ndjson"}
TIMES = (1_000, 2_000)


def position(offset: int) -> StreamPosition:
    return StreamPosition("s1", {0: offset})


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A file that ends within a record, and a bookmark behind the second one."""
    path = tmp_path / "out.ndjson"
    output = FileOutput(path, b"", position(5), REQUEST, TIMES, None)
    output.write(b"one\ntwo\n", 2, position(7))
    output.keep()
    output.write(b"three\nfo", 1, position(8))
    output.close()
    return path


def test_bookmark_says_how_far_the_file_is_safe(interrupted: Path) -> None:
    bookmark = load_bookmark(bookmark_path(interrupted), REQUEST)
    assert bookmark is not None
    assert (bookmark.bytes, bookmark.records, bookmark.from_ms, bookmark.to_ms) == (8, 2, 1_000, 2_000)
    assert bookmark.position("telemetry") == position(7)


def test_going_on_cuts_what_the_bookmark_does_not_cover(interrupted: Path) -> None:
    bookmark = load_bookmark(bookmark_path(interrupted), REQUEST)
    assert bookmark is not None
    output = FileOutput(interrupted, b"head\n", bookmark.position("telemetry"), REQUEST, TIMES, bookmark)
    output.write(b"three\n", 1, position(8))
    output.finish()
    output.close()
    assert interrupted.read_bytes() == b"one\ntwo\nthree\n"
    assert (output.written.bytes, output.written.records) == (14, 3)
    assert not bookmark_path(interrupted).exists()


def test_file_that_lost_what_the_bookmark_covers_is_refused(interrupted: Path) -> None:
    interrupted.write_bytes(b"one\n")
    bookmark = load_bookmark(bookmark_path(interrupted), REQUEST)
    with pytest.raises(ReplayFailed, match=r"has 4 bytes, and out\.ndjson\.resume says 8"):
        FileOutput(interrupted, b"", position(7), REQUEST, TIMES, bookmark)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("topics", ["b/#"], "topics a/#, not b/#"), ("format", "csv", "format ndjson, not csv")],
)
def test_bookmark_of_another_request_is_refused(interrupted: Path, name: str, value: object, text: str) -> None:
    with pytest.raises(ReplayFailed, match=text):
        load_bookmark(bookmark_path(interrupted), REQUEST | {name: value})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 2}'])
def test_bookmark_that_is_none_is_refused(interrupted: Path, text: str) -> None:
    bookmark_path(interrupted).write_text(text)
    with pytest.raises(ReplayFailed, match="Begin again without --resume"):
        load_bookmark(bookmark_path(interrupted), REQUEST)


def test_no_bookmark_is_none(tmp_path: Path) -> None:
    assert load_bookmark(tmp_path / "nothing.resume", REQUEST) is None


def test_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReplayFailed, match=r"there is no .*nowhere"):
        FileOutput(tmp_path / "nowhere" / "out", b"", position(0), REQUEST, TIMES, None)
