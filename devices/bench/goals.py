"""The goals that Headrace is held to, and whether a report meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.bench.results import SUBJECT, Report


@dataclass(frozen=True)
class Verdict:
    """A goal beside what was measured."""

    goal: str
    result: str
    is_met: bool | None
    """None: not measured in this run."""


def _ratio(key: str, title: str, factor: float) -> Callable[[Report], Verdict]:
    def judge(report: Report) -> Verdict:
        row = report.rows.get(key)
        ratio = row.ratio() if row else None
        goal = f"{title}: ≥ {factor:g} × Mosquitto"
        return Verdict(goal, "–" if ratio is None else f"{ratio:.2f} ×", None if ratio is None else ratio >= factor)

    return judge


def _rate(key: str, title: str, rate_min: float) -> Callable[[Report], Verdict]:
    def judge(report: Report) -> Verdict:
        row = report.rows.get(key)
        cell = row.cells.get(SUBJECT) if row else None
        rate = cell.rate.median if row and cell and not row.problem(SUBJECT) else None
        goal = f"{title}: ≥ {rate_min:,.0f}/s"
        return Verdict(goal, "–" if rate is None else f"{rate:,.0f}/s", None if rate is None else rate >= rate_min)

    return judge


def _at_most(key: str, title: str, limit: float, unit: str) -> Callable[[Report], Verdict]:
    def judge(report: Report) -> Verdict:
        value = report.median(key)
        goal = f"{title}: ≤ {limit:,.0f} {unit}"
        return Verdict(
            goal, "–" if value is None else f"{value:,.0f} {unit}", None if value is None else value <= limit
        )

    return judge


LATENCY_ABOVE_FSYNC_MS = 4.0
EXPORT_FACTOR_MAX = 3.0
MEMORY_CHANGE_MAX = 0.10


def _latency(report: Report) -> Verdict:
    p99, bare = report.median("ack_p99_ms"), report.median("fsync_p99_ms")
    goal = f"ack p99 at 10 k/s, stored: ≤ p99 of a bare 4 KB write + fsync + {LATENCY_ABOVE_FSYNC_MS:g} ms"
    if p99 is None or bare is None:
        return Verdict(goal, "–", None)
    return Verdict(goal, f"{p99:.2f} ms, bare {bare:.2f} ms", p99 <= bare + LATENCY_ABOVE_FSYNC_MS)


def _latency_with_export(report: Report) -> Verdict:
    p99, quiet = report.median("ack_export_p99_ms"), report.median("ack_p99_ms")
    goal = f"the same while a full export runs: ≤ {EXPORT_FACTOR_MAX:g} × without"
    if p99 is None or not quiet:
        return Verdict(goal, "–", None)
    return Verdict(goal, f"{p99:.2f} ms, {p99 / quiet:.1f} ×", p99 <= EXPORT_FACTOR_MAX * quiet)


def _flat_memory(report: Report) -> Verdict:
    early, late = report.median("rss_early_mb"), report.median("rss_late_mb")
    goal = f"memory after all messages against after a tenth: ± {MEMORY_CHANGE_MAX:.0%}"
    if not early or late is None:
        return Verdict(goal, "–", None)
    change = late / early - 1
    return Verdict(goal, f"{early:.0f} → {late:.0f} MB, {change:+.1%}", abs(change) <= MEMORY_CHANGE_MAX)


GOALS: tuple[Callable[[Report], Verdict], ...] = (
    _ratio("q0_1_1", "QoS 0 1→1", 2),
    _ratio("q0_1_10", "QoS 0 1→10, delivered", 10),
    _ratio("q1_1_1", "QoS 1 1→1, topics in a memory stream", 4),
    _ratio("stored_1", "QoS 1 stored and acknowledged, 1 publisher (Mosquitto from memory)", 3),
    _ratio("stored_100", "QoS 1 stored and acknowledged, 100 publishers (Mosquitto from memory)", 3),
    _latency,
    _latency_with_export,
    _rate("sse_1", "MQTT → log → SSE, 1 reader", 300_000),
    _rate("sse_100", "MQTT → log → SSE, 100 readers of one filter", 3_000_000),
    _at_most("idle_mqtt_headrace", "an idle MQTT connection", 3 * 1024, "B"),
    _at_most("idle_sse_headrace", "an idle SSE reader", 4 * 1024, "B"),
    _at_most("rare_topic_ms", "first event of a rare topic, file cache cold", 200, "ms"),
    _flat_memory,
)


def judge(report: Report) -> list[Verdict]:
    """Every goal's verdict, those not measured included."""
    return [goal(report) for goal in GOALS]
