"""The goals that Headrace is held to, and whether a report meets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from devices.bench.results import PLAIN, SUBJECT, Report


@dataclass(frozen=True)
class Verdict:
    """A goal beside what was measured."""

    goal: str
    result: str
    is_met: bool | None
    """None: not measured in this run."""


def _ratio(key: str, title: str, factor: float, baseline: str = "Mosquitto") -> Callable[[Report], Verdict]:
    def judge(report: Report) -> Verdict:
        row = report.rows.get(key)
        ratio = row.ratio() if row else None
        goal = f"{title}: ≥ {factor:g} × {baseline}"
        if ratio is not None:
            return Verdict(goal, f"{ratio:.2f} ×", ratio >= factor)
        bound = row.ratio_at_least() if row else None
        if bound is not None and bound >= factor:
            return Verdict(goal, f"at least {bound:.2f} ×, the generator's limit", True)
        return Verdict(goal, "–", None)

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
        goal = f"{title}: ≤ {limit:,g} {unit}"
        result = "–" if value is None else f"{value:,.{0 if limit >= 100 else 2}f} {unit}"
        return Verdict(goal, result, None if value is None else value <= limit)

    return judge


def _at_least(key: str, title: str, rate_min: float) -> Callable[[Report], Verdict]:
    def judge(report: Report) -> Verdict:
        rate = report.median(key)
        goal = f"{title}: ≥ {rate_min:,.0f}/s"
        return Verdict(goal, "–" if rate is None else f"{rate:,.0f}/s", None if rate is None else rate >= rate_min)

    return judge


def _times(key: str, beside: str, title: str, factor: float, than: str) -> Callable[[Report], Verdict]:
    """A latency in ms at most so many times another one."""

    def judge(report: Report) -> Verdict:
        value, other = report.median(key), report.median(beside)
        goal = f"{title}: ≤ {factor:g} × {than}"
        if value is None or not other:
            return Verdict(goal, "–", None)
        return Verdict(goal, f"{value:.2f} ms, {value / other:.1f} ×", value <= factor * other)

    return judge


def _share(key: str, beside: str, title: str, factor: float, of: str) -> Callable[[Report], Verdict]:
    """A rate among the figures that is at least so many times another one."""

    def judge(report: Report) -> Verdict:
        value, other = report.median(key), report.median(beside)
        goal = f"{title}: ≥ {factor:g} × {of}"
        if value is None or not other:
            return Verdict(goal, "–", None)
        return Verdict(goal, f"{value:,.0f}, {value / other:.2f} ×", value >= factor * other)

    return judge


LATENCY_ABOVE_FSYNC_MS = 4.0
EXPORT_FACTOR_MAX = 3.0
MEMORY_CHANGE_MAX = 0.10
SPOOL_SHARE_MIN = 0.8
"""The spool is an embedded log; two runs of the same one differ by as much on a quiet machine."""


def _latency(report: Report) -> Verdict:
    p99, bare = report.median("ack_p99_ms"), report.median("fsync_p99_ms")
    goal = f"ack p99 at 10 k/s, stored: ≤ p99 of a bare 4 KB write + fsync + {LATENCY_ABOVE_FSYNC_MS:g} ms"
    if p99 is None or bare is None:
        return Verdict(goal, "–", None)
    return Verdict(goal, f"{p99:.2f} ms, bare {bare:.2f} ms", p99 <= bare + LATENCY_ABOVE_FSYNC_MS)


def _flat_memory(report: Report) -> Verdict:
    early, late = report.median("rss_early_mb"), report.median("rss_late_mb")
    goal = f"memory after all messages against after a tenth: ± {MEMORY_CHANGE_MAX:.0%}"
    if not early or late is None:
        return Verdict(goal, "–", None)
    change = late / early - 1
    return Verdict(goal, f"{early:.0f} → {late:.0f} MB, {change:+.1%}", abs(change) <= MEMORY_CHANGE_MAX)


GOALS: tuple[Callable[[Report], Verdict], ...] = (
    *(
        _ratio(key, title, factor)
        for key, title, factor in (
            ("q0_1_1", "QoS 0 1→1", 5),
            ("q1_1_1", "QoS 1 1→1", 10),
            ("q2_1_1", "QoS 2 1→1", 8),
            ("q0_1_10", "QoS 0 1→10, delivered", 20),
            ("q0_1_100", "QoS 0 1→100, delivered", 25),
            ("q0_1_1000", "QoS 0 1→1000, delivered", 25),
            ("q1_1_10", "QoS 1 1→10, delivered", 12),
            ("q1_1_100", "QoS 1 1→100, delivered", 18),
            ("q0_100_1", "QoS 0 100→1", 8),
            ("q1_100_1", "QoS 1 100→1", 12),
            ("q0_pairs", "QoS 0 100 pairs", 10),
            ("q1_pairs", "QoS 1 100 pairs", 8),
            ("q1_v5", "MQTT 5, Receive Maximum 100, QoS 1 1→1", 6),
            ("q1_ws", "WebSocket, QoS 1 1→1", 2.5),
            ("topics", "100 k topics to one #", 6),
            ("subscriptions", "100 k subscriptions of 100 clients", 4),
            ("retained", "100 k retained messages fetched", 2),
            ("drain", "100 k QoS 1 to a session that comes back", 4),
            ("stored_1", "QoS 1 stored and acknowledged, 1 publisher (Mosquitto from memory)", 6),
            ("stored_100", "QoS 1 stored and acknowledged, 100 publishers (Mosquitto from memory)", 6),
        )
    ),
    _times("delivery_headrace_p50_ms", "delivery_mosquitto_p50_ms", "delivery at 10 k/s, p50", 2, "Mosquitto"),
    _at_most("delivery_headrace_p99_ms", "delivery at 10 k/s, p99", 1.5, "ms"),
    _latency,
    _times("ack_export_p99_ms", "ack_p99_ms", "the same while a full export runs", EXPORT_FACTOR_MAX, "without"),
    _rate("sse_1", "MQTT → log → SSE, 1 reader", 300_000),
    _rate("sse_100", "MQTT → log → SSE, 100 readers of one filter", 3_000_000),
    _at_most("idle_mqtt_headrace", "an idle MQTT connection", 2 * 1024, "B"),
    _at_most("idle_sse_headrace", "an idle SSE reader", 4 * 1024, "B"),
    _share("connects_headrace", "connects_mosquitto", "connections for a second of processor time", 0.3, "Mosquitto"),
    _at_most("rare_topic_ms", "first event of a rare topic, file cache cold", 200, "ms"),
    _flat_memory,
)

KAFKA_GOALS: tuple[Callable[[Report], Verdict], ...] = (
    *(
        goal
        for key, partitions in (("kafka_1", "1 partition"), ("kafka_12", "12 partitions"))
        for goal in (
            _rate(key, f"QoS 1 → Kafka → PUBACK, {partitions}", 250_000),
            _ratio(key, f"the same, {partitions}", 0.5, PLAIN),
        )
    ),
    *(
        _times(f"kafka_ack_{rate}_p99_ms", f"plain_ack_{rate}_p99_ms", f"ack p99 through Kafka at {rate:,}/s", 3, PLAIN)
        for rate in (1_000, 10_000)
    ),
    _rate("kafka_sse_1", "Kafka → SSE, 1 reader from the beginning, 1 partition", 200_000),
    _rate("kafka_sse_12", "Kafka → SSE, 1 reader from the beginning, 12 partitions", 200_000),
    _ratio("kafka_spool", "spooled and acknowledged, Kafka stopped", SPOOL_SHARE_MIN, "the embedded log"),
    _at_least("kafka_drain", "drained from the spool to Kafka", 300_000),
)

REPLAY_GOALS: tuple[Callable[[Report], Verdict], ...] = (
    *(
        goal
        for form, name in (("ndjson", "NDJSON"), ("csv", "CSV"), ("parquet", "Parquet"))
        for goal in (
            _rate(f"export_{form}", f"export as {name}", 400_000),
            _at_most(f"export_{form}_memory_mb", f"memory above that before, export as {name}", 200, "MB"),
            _times(
                f"replay_ack_{form}_p99_ms",
                "replay_ack_p99_ms",
                f"ack p99 of live traffic during an export as {name}",
                EXPORT_FACTOR_MAX,
                "without",
            ),
        )
    ),
    _at_most("histogram_ms", "histogram of 24 h", 300, "ms"),
    _at_most("series_ms", "series of a tenth of all records to 1,000 points", 1_500, "ms"),
    _at_most("topics_at_ms", "topics at a time", 500, "ms"),
    _rate("replay_q0", "$replay to an MQTT subscriber, QoS 0", 400_000),
    _rate("replay_q1", "$replay to an MQTT subscriber, QoS 1", 150_000),
)


def judge(report: Report) -> list[Verdict]:
    """Every goal's verdict, those not measured included."""
    return [goal(report) for goal in (*GOALS, *KAFKA_GOALS, *REPLAY_GOALS)]
