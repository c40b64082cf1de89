"""docs/interoperability.md says what the table of clients says, and which versions are pinned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.interoperability import test_interoperability, test_interoperability_mqtt5, test_keep_alive
from tests.interoperability.clients import LIBRARIES, Library

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "interoperability.md").read_text(encoding="utf-8")
PROGRAMS = ROOT / "tests" / "interoperability"
SCENARIOS = (test_interoperability, test_interoperability_mqtt5, test_keep_alive)
TRANSPORTS = {"tcp": "TCP", "websocket": "WebSocket"}


def pinned_versions() -> dict[str, str]:
    """By the name of the client."""
    go = (PROGRAMS / "go" / "go.mod").read_text(encoding="utf-8")
    package = json.loads((PROGRAMS / "javascript" / "package.json").read_text(encoding="utf-8"))
    found = dict(re.findall(r"github\.com/eclipse/(\S+) v(\S+)", go))
    return {**found, "mqtt.js": package["dependencies"]["mqtt"]}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_each_client_has_its_row(library: Library) -> None:
    row = re.search(rf"^\| {re.escape(library.name)} \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert row[1] == pinned_versions().get(library.name, "as installed")
    assert row[2] == ", ".join(library.versions)
    assert row[3] == ", ".join(TRANSPORTS[transport] for transport in library.transports)


def test_the_page_names_every_scenario_that_is_left_out_and_no_other() -> None:
    rows = []
    for library in LIBRARIES:
        for scenario, reason in library.cannot.items():
            words = re.sub(r" ([\d.]+)$", r" (MQTT \1)", scenario.removeprefix("test_").replace("_", " "))
            rows.append(f"| {library.name} | {words} | {reason} |")
    assert PAGE[PAGE.rindex("| --- | --- | --- |\n") :].splitlines()[1:] == rows


def test_the_table_of_clients_names_scenarios_that_exist() -> None:
    for library in LIBRARIES:
        for scenario in (key.split()[0] for key in library.cannot):
            assert any(hasattr(module, scenario) for module in SCENARIOS)
