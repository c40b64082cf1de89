"""Wrong usage of `headrace bench` is said before anything is started."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.bench.cli import app
from devices.bench.idle import raise_descriptor_limit
from devices.bench.results import Report
from devices.bench.rounds import Plan
from devices.bench.wire import free_ports


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def test_an_unknown_scenario_names_those_there_are() -> None:
    exit_code, output = run("mqtt", "--only", "q9")
    assert exit_code == 2
    assert "no scenario is called 'q9'" in output
    assert "q0_1_10" in output


def test_an_unknown_server_names_those_there_are() -> None:
    exit_code, output = run("mqtt", "--peers", "headrace,kafka")
    assert exit_code == 2
    assert "no peer is called 'kafka'; known: headrace, " in output


@pytest.mark.parametrize(("command", "known"), [("kafka", "kafka_sse_12"), ("replay", "export_parquet")])
def test_the_scenarios_of_kafka_and_replay_are_named(command: str, known: str) -> None:
    exit_code, output = run(command, "--only", "q0_1_1")
    assert exit_code == 2
    assert "no scenario is called 'q0_1_1'" in output
    assert known in output


def test_an_installed_package_asks_for_a_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.bench.kafka_broker.has_scripts", lambda: False)
    exit_code, output = run("kafka", "--only", "kafka_1")
    assert exit_code == 1
    assert "name one by --bootstrap HOST:PORT" in output


def test_without_numpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exit_code, output = run("sse")
    assert exit_code == 2
    assert "pip install 'headrace[bench]'" in output


def test_a_failed_check_exits_1_and_is_in_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(plan: Plan, report: Report, keys: tuple[str, ...]) -> None:
        report.failures.append("subscriber 0: loss: 3 came where 2 was due")

    monkeypatch.setattr("devices.bench.mqtt.bench_mqtt", measure)
    exit_code, output = run("mqtt", "--only", "q0_1_1", "--peers", "headrace", "--json", str(tmp_path / "result.json"))
    assert exit_code == 1
    assert "failed subscriber 0: loss" in output
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["problems"] == ["subscriber 0: loss: 3 came where 2 was due"]
    assert "headrace" in document["facts"]["servers"]


def test_ports_for_servers_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_the_descriptor_limit_leaves_room_for_what_was_asked() -> None:
    assert raise_descriptor_limit(200) == 200
