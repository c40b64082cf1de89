"""What `/system` and the metrics say about limits is complete, and every hit is of a limit that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from bridge.config import Config
from bridge.limits import COUNTED, Limits
from broker.limit_hits import LimitHits

ROOT = Path(__file__).parents[2]


def keys() -> set[str]:
    """Of the documented limits that have a number for the whole server."""
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| [^|]+ \| `([a-z_.]+)` \|", text, re.MULTILINE))
    each_source_has = {key for key in documented if key.startswith(("ingest.", "egress."))}
    return documented - each_source_has - {"streams.retention.age", "streams.retention.bytes", "kafka.spool_age_s_max"}


def names_hit(package: str) -> set[str]:
    """The arguments of every `hit(…)` below a package: the texts in them."""
    found: set[str] = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "hit":
                found |= {
                    part.value
                    for part in ast.walk(node.args[0])
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    return found


def test_every_documented_limit_is_shown_with_its_value() -> None:
    rows = {row["name"]: row for row in Limits(Config()).rows()}
    assert rows.keys() == keys()
    assert rows["mqtt.connections_max"] == {"name": "mqtt.connections_max", "value": 50_000, "hits": 0, "last": None}
    assert rows["live.heartbeat_s"]["hits"] is None


def test_whatever_is_hit_is_counted() -> None:
    assert keys() >= COUNTED
    assert {f"mqtt.{name}" for name in names_hit("broker")} <= COUNTED
    assert names_hit("bridge") <= COUNTED


def test_hits_of_the_broker_and_of_the_rest_are_one_table() -> None:
    limits = Limits(Config())
    limits.of_broker = LimitHits(lambda: 1_800_000_000_000)
    limits.of_broker.hit("queued_bytes_max")
    limits.of_broker.hit("queued_bytes_max")
    limits.hits.hit("mqtt.packet_bytes_max")
    limits.hits.hit("http.body_bytes_max")
    rows = {row["name"]: row for row in limits.rows()}
    assert rows["mqtt.queued_bytes_max"]["hits"] == 2
    assert rows["mqtt.queued_bytes_max"]["last"] == "2027-01-15T08:00:00.000Z"
    assert rows["mqtt.packet_bytes_max"]["hits"] == rows["http.body_bytes_max"]["hits"] == 1
    assert rows["http.body_bytes_max"]["last"] is not None


def test_who_listens_hears_of_each_hit() -> None:
    heard: list[str] = []
    hits = LimitHits()
    hits.on_hit = heard.append
    hits.hit("a")
    hits.hit("a")
    assert heard == ["a", "a"]
