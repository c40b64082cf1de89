"""Wrong usage of `headrace bench` is said before anything is started."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from devices.bench.cli import app
from devices.bench.idle import raise_descriptor_limit


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
    assert "no peer is called 'kafka'; known: headrace, mosquitto" in output


def test_without_numpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exit_code, output = run("sse")
    assert exit_code == 2
    assert "pip install 'headrace[bench]'" in output


def test_the_descriptor_limit_leaves_room_for_what_was_asked() -> None:
    assert raise_descriptor_limit(200) == 200
