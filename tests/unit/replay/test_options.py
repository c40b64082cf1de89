"""`headrace replay`: what its options come to, and which of them contradict each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import main
from bridge.cli.errors import UserError
from bridge.cli.replay import earlier
from bridge.cli.replay_options import Plan, ReplayOptions, make_plan
from bridge.replay.source import ReplayFailed

NOW_MS = 1_000_000_000_000


def plan(data_dir: Path = Path("data"), **options: Any) -> Plan:
    return make_plan(ReplayOptions("telemetry", **options), data_dir, NOW_MS)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("now", NOW_MS),
        ("-15m", NOW_MS - 900_000),
        ("-24h", NOW_MS - 86_400_000),
        ("999999999999", 999_999_999_999),
        ("2001-09-09T01:46:39Z", 999_999_999_000),
        ("2001-09-09T03:46:39.5+02:00", 999_999_999_500),
    ],
)
def test_times(text: str, time_ms: int) -> None:
    assert plan(from_=text).wanted.from_ms == time_ms


def test_defaults_are_everything_until_now_as_ndjson_at_once_to_standard_output() -> None:
    made = plan()
    assert (made.wanted.from_ms, made.wanted.to_ms, made.wanted.filters) == (None, NOW_MS, ())
    assert (made.format, made.output, made.speed, made.state) == ("ndjson", "-", math.inf, None)


def test_file_says_the_format_and_has_its_bookmark_beside_it() -> None:
    made = plan(output="x/out.csv")
    assert (made.format, made.state) == ("csv", Path("x/out.csv.resume"))
    assert plan(output="out.csv", format="ndjson").format == "ndjson"
    parquet = plan(output="out.parquet")
    assert (parquet.format, parquet.state) == ("parquet", None)


def test_messages_go_at_their_own_pace_and_keep_their_place_by_stream_and_target(tmp_path: Path) -> None:
    made = plan(tmp_path, to_mqtt="mqtt://u:p@b:1884", prefix="copy/")
    assert made.speed == 1
    assert made.state is not None
    assert made.state.parent == tmp_path
    assert made.state.name.startswith("replay-telemetry-b-1884-")
    assert plan(tmp_path, to_mqtt="mqtt://b:1884", prefix="copy/").state == made.state
    assert plan(tmp_path, to_mqtt="mqtt://b:1884", prefix="other/").state != made.state
    assert "p@" not in str(made.request)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"from_": "yesterday"}, "--from: 'yesterday' is no time; write RFC 3339"),
        ({"from_": "2026-11-22T19:00:00"}, "has no zone"),
        ({"from_": "now", "to": "-1h"}, "--from is after --to"),
        ({"topics": ["a/#/b"]}, '--topic "a/#/b" is not a topic filter'),
        ({"speed": "quick"}, '--speed "quick" is no speed'),
        ({"resume": True}, "cannot be gone on with: give --output FILE"),
        ({"prefix": "copy/"}, "--prefix and --qos are for --to-mqtt"),
        ({"state": Path("s")}, "--state is for --to-mqtt"),
        ({"output": "out.parquet", "resume": True}, "half of one cannot be gone on with"),
        ({"format": "parquet", "speed": "10"}, "--speed is for text"),
        ({"to_mqtt": "mqtt://b", "output": "out"}, "Choose one of the two"),
        ({"to_mqtt": "mqtt://b", "prefix": "a/#/"}, "it has a wildcard"),
        ({"to_mqtt": "http://b"}, "is not a broker's address"),
        ({"to_mqtt": "mqtt://b", "url": "http://h", "resume": True}, "give --state FILE"),
    ],
)
def test_contradictions_are_wrong_usage(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text.replace("(", r"\(")) as raised:
        plan(**options)
    assert raised.value.exit_code == 2


def test_interrupted_export_is_not_begun_anew_by_accident(tmp_path: Path) -> None:
    (tmp_path / "out.resume").write_text("{}")
    with pytest.raises(ReplayFailed, match=r"was interrupted\. To go on: --resume"):
        earlier(plan(output=str(tmp_path / "out")))


def test_complete_export_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ReplayFailed, match="that export is complete"):
        earlier(plan(output=str(tmp_path / "out"), resume=True))


def test_resume_of_what_never_began_begins(tmp_path: Path) -> None:
    assert earlier(plan(output=str(tmp_path / "out"), resume=True)) is None


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (("--from", "-15m"), 1, "there is no headrace.sqlite in"),
        (("--from=-15m", "--to", "now"), 1, "--data DIR; a server elsewhere: --url http://HOST:8000"),
        (("--qos", "3"), 2, "Invalid value for '--qos'"),
        (("--format", "xml"), 2, "Invalid value for '--format'"),
        (("--url", "ftp://x"), 2, "--url: ftp://x is not a server's address"),
        (
            ("--url", "http://127.0.0.1:1"),
            1,
            "no server answers at http://127.0.0.1:1: connection refused. Is it running",
        ),
    ],
)
def test_errors_of_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], exit_code: int, text: str
) -> None:
    assert main(("replay", "telemetry", "--data", str(tmp_path), *arguments)) == exit_code
    printed = capsys.readouterr()
    assert text in printed.err
    assert "Traceback" not in printed.err
