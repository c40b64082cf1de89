"""The arithmetic of the tables: medians, ratios, what counts as valid, which goals are met."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from devices.bench.goals import judge
from devices.bench.load import LoadResult
from devices.bench.report import print_report, rate_text
from devices.bench.results import PLAIN, Cell, Report, Row, Series


def cell(*rates: float) -> Cell:
    filled = Cell()
    for rate in rates:
        filled.add(
            LoadResult(
                messages=int(rate), seconds=1.0, server_cpu_s=0.5, load_cpu_s=0.25, other_cpu_s=0.1, sent=int(rate)
            )
        )
    return filled


def row(key: str = "q0_1_1", ceiling: float = 10_000_000.0, **cells: Cell) -> Row:
    return Row(key, "QoS 0 1→1", Series([ceiling]), dict(cells))


def test_a_series_has_a_median_and_a_range() -> None:
    series = Series([3.0, 1.0, 2.0])
    assert (series.median, series.low, series.high) == (2.0, 1.0, 3.0)
    assert (Series().median, Series().low) == (None, None)


def test_a_cell_keeps_cpu_for_each_message_and_the_generators_cores() -> None:
    filled = cell(500_000)
    assert (filled.rate.median, filled.cpu_us.median, filled.load_cores.median) == (500_000, 1.0, 0.25)


def test_a_ratio_is_median_against_median() -> None:
    assert row(headrace=cell(100, 600, 900), mosquitto=cell(200, 300, 1_000)).ratio() == 2.0


def test_no_ratio_without_a_baseline_or_with_a_failed_one() -> None:
    assert row(headrace=cell(100)).ratio() is None
    failed = row(headrace=cell(100), mosquitto=cell(50))
    failed.cells["mosquitto"].failure = "loss"
    assert failed.ratio() is None


def test_a_rate_above_two_thirds_of_the_ceiling_is_refused() -> None:
    report = Report()
    refused = report.add_row(row(ceiling=900, headrace=cell(601, 640), mosquitto=cell(100)))
    assert "above two thirds" in (refused.problem("headrace") or "")
    assert refused.ratio() is None
    assert len(report.problems()) == 1
    assert row(ceiling=900, headrace=cell(600)).problem("headrace") is None


def test_a_rate_without_a_ceiling_is_refused() -> None:
    bare = Row("q0_1_1", "QoS 0 1→1", cells={"headrace": cell(5)}, ceiling_failure="the relay did not start")
    assert bare.problem("headrace") == "no ceiling: the relay did not start"


def test_what_runs_without_the_generator_is_not_held_against_its_ceiling() -> None:
    shown = row("kafka_1", ceiling=900, headrace=cell(500), plain=cell(2_000))
    shown.baseline = "plain"
    shown.cells["plain"].is_bare = True
    assert shown.problem("plain") is None
    assert shown.ratio() == 0.25


def test_the_peer_that_a_row_is_held_against_fails_the_run_too() -> None:
    report = Report()
    shown = report.add_row(row("kafka_1", headrace=cell(500), plain=Cell(failure="Kafka: loss")))
    shown.baseline = "plain"
    assert report.problems() == ["QoS 0 1→1, plain: Kafka: loss"]


def test_a_further_peer_that_loses_messages_does_not_fail_the_run() -> None:
    report = Report()
    shown = report.add_row(row(headrace=cell(10), amqtt=Cell(failure="loss")))
    assert report.problems() == []
    shown.cells["headrace"].failure = "loss: 5"
    assert report.problems() == ["QoS 0 1→1, headrace: loss: 5"]


def test_a_busy_machine_is_said_without_failing_the_run() -> None:
    report = Report()
    doubtful = report.add_row(row(headrace=cell(10), mosquitto=cell(10)))
    assert report.doubts() == []
    doubtful.cells["mosquitto"].other_cores.values.append(0.7)
    assert report.doubts() == ["QoS 0 1→1, mosquitto: other processes used up to 0.7 cores meanwhile"]
    assert report.problems() == []


def test_a_generator_that_was_late_itself_makes_a_latency_doubtful() -> None:
    report = Report()
    late = report.add_figure("ack_late_p99_ms", "the generator's own lateness, p99", "ms")
    late.series.values.append(0.4)
    assert report.doubts() == []
    late.series.values += [3.0, 4.0]
    assert report.doubts() == ["the generator's own lateness, p99: 3.0 ms"]


def verdicts(report: Report) -> dict[str, bool | None]:
    return {verdict.goal: verdict.is_met for verdict in judge(report)}


def test_a_goal_of_a_ratio_is_met_from_its_factor_on() -> None:
    report = Report()
    report.add_row(row(headrace=cell(500), mosquitto=cell(100)))
    assert verdicts(report)["QoS 0 1→1: ≥ 5 × Mosquitto"] is True
    report.add_row(row(headrace=cell(499), mosquitto=cell(100)))
    assert verdicts(report)["QoS 0 1→1: ≥ 5 × Mosquitto"] is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert set(verdicts(Report()).values()) == {None}


@pytest.mark.parametrize(("p99_ms", "is_met"), [(5.9, True), (6.1, False)])
def test_ack_latency_is_held_against_the_bare_disk(p99_ms: float, is_met: bool) -> None:
    report = Report()
    report.add_figure("fsync_p99_ms", "fsync", "ms").series.values.append(2.0)
    report.add_figure("ack_p99_ms", "ack", "ms").series.values.append(p99_ms)
    goal = next(goal for goal in verdicts(report) if goal.startswith("ack p99"))
    assert verdicts(report)[goal] is is_met


@pytest.mark.parametrize(("late_mb", "is_met"), [(109.0, True), (91.0, True), (111.0, False), (89.0, False)])
def test_memory_must_stay_flat_both_ways(late_mb: float, is_met: bool) -> None:
    report = Report()
    report.add_figure("rss_early_mb", "early", "MB").series.values.append(100.0)
    report.add_figure("rss_late_mb", "late", "MB").series.values.append(late_mb)
    goal = next(goal for goal in verdicts(report) if goal.startswith("memory"))
    assert verdicts(report)[goal] is is_met


def test_a_rate_and_its_share_of_plain_kafka_are_goals_of_their_own() -> None:
    report = Report()
    shown = report.add_row(row("kafka_1", headrace=cell(240_000), **{PLAIN: cell(400_000)}))
    shown.baseline = PLAIN
    assert verdicts(report)["QoS 1 → Kafka → PUBACK, 1 partition: ≥ 250,000/s"] is False
    assert verdicts(report)["the same, 1 partition: ≥ 0.5 × plain aiokafka"] is True


@pytest.mark.parametrize(("p99_ms", "is_met"), [(5.9, True), (6.1, False)])
def test_ack_latency_through_kafka_is_held_against_plain_kafka(p99_ms: float, is_met: bool) -> None:
    report = Report()
    report.add_latency("plain_ack_1000", "plain", 1.0, 2.0)
    report.add_latency("kafka_ack_1000", "ours", 1.0, p99_ms)
    assert verdicts(report)["ack p99 through Kafka at 1,000/s: ≤ 3 × plain aiokafka"] is is_met


def test_memory_of_an_export_has_a_bound() -> None:
    report = Report()
    report.add_figure("export_csv_memory_mb", "memory", "MB").series.values.append(199)
    goal = "memory above that before, export as CSV: ≤ 200 MB"
    assert verdicts(report)[goal] is True
    report.figures["export_csv_memory_mb"].series.values[:] = [201]
    assert verdicts(report)[goal] is False


def test_the_drain_of_the_spool_has_a_rate() -> None:
    report = Report()
    report.add_figure("kafka_drain", "drain", "/s").series.values.append(300_000)
    assert verdicts(report)["drained from the spool to Kafka: ≥ 300,000/s"] is True


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, "–"), (8_213, "8.2 k"), (9_960, "10 k"), (456_400, "456 k"), (999_600, "1.00 M"), (2_345_000, "2.35 M")],
)
def test_rates_have_three_digits_that_count(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text


def test_the_printed_report_shows_rates_goals_and_failures() -> None:
    report = Report(facts={"machine": "two cores"})
    report.add_row(row(headrace=cell(3_000_000, 3_100_000), mosquitto=cell(300_000), amqtt=Cell(failure="loss: [1]")))
    report.add_figure("idle_mqtt_headrace", "an idle MQTT connection", "B").series.values.append(1_539)
    report.failures.append("history: no event")
    console = Console(file=io.StringIO(), width=140)
    print_report(report, console, is_complete=False)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for text in ("3.05 M", "3.00 M – 3.10 M", "10.17", "loss: [1]", "1,539 B", "met", "history: no event"):
        assert text in shown
    assert "not measured" not in shown


def test_json_carries_medians_ratios_and_problems() -> None:
    report = Report()
    report.add_row(row(headrace=cell(300), mosquitto=cell(100)))
    report.failures.append("history: no event")
    document = json.loads(json.dumps(report.to_json()))
    assert document["rows"]["q0_1_1"]["cells"]["headrace"]["ratio"] == 3.0
    assert document["problems"] == ["history: no event"]


def test_connections_for_a_second_of_processor_time_are_held_against_mosquitto() -> None:
    report = Report()
    for name, rate in (("headrace", 20_000.0), ("mosquitto", 80_000.0)):
        report.add_figure(f"connects_{name}", "connects", "/s").series.values.append(rate)
    assert verdicts(report)["connections for a second of processor time: ≥ 0.3 × Mosquitto"] is False
    report.add_figure("connects_headrace", "connects", "/s").series.values[:] = [24_000.0]
    assert verdicts(report)["connections for a second of processor time: ≥ 0.3 × Mosquitto"] is True


def test_a_ratio_that_the_generator_limits_is_a_lower_bound() -> None:
    report = Report()
    report.add_row(row(headrace=cell(900), mosquitto=cell(100)))
    report.rows["q0_1_1"].ceiling.values[:] = [1_000]
    (verdict,) = [verdict for verdict in judge(report) if verdict.goal == "QoS 0 1→1: ≥ 5 × Mosquitto"]
    assert verdict.is_met is True
    assert verdict.result == "at least 9.00 ×, the generator's limit"
    report.add_row(row(headrace=cell(900), mosquitto=cell(300)))
    report.rows["q0_1_1"].ceiling.values[:] = [1_000]
    assert verdicts(report)["QoS 0 1→1: ≥ 5 × Mosquitto"] is None
