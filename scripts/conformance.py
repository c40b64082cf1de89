"""Writes docs/conformance.md: each normative statement for a server with the tests that hold us to it.

The statements are in tests/conformance/statements.toml, the tests beside it name them in their docstrings:
`[MQTT-3.1.2-8]` is a statement of 5.0, `[MQTT-3.1.2-8] of 3.1.1` one of 3.1.1. A test with the fixture `version` runs
for both, so it also counts for the statement of 3.1.1 that says the same. A unit test compares the file with what this
would write.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests" / "conformance"
STATEMENTS = TESTS / "statements.toml"
WEBSOCKET_TESTS = ROOT / "tests" / "integration" / "test_websocket.py"
"""Chapter 6; it says nothing of packets, so these tests count for both versions."""
FILE = ROOT / "docs" / "conformance.md"

VERSIONS = ("5.0", "3.1.1")
NAMED = re.compile(r"\[MQTT-([0-9.]+-[0-9]+)\]( of 3\.1\.1)?")

HEAD = """\
# Conformance

What MQTT 5.0 and 3.1.1 demand of a server, statement by statement, in our own short words (the specifications are what
binds), with the tests that hold us to it. `.venv/bin/python -m pytest tests/conformance` runs them, with
`--mqtt-port PORT` against another broker. This page is written by `.venv/bin/python -m scripts.conformance`.

Where MQTT leaves a choice we do as Mosquitto does:

- a text that is no topic filter makes its packet malformed, and so do control characters in topics, client identifiers
  (0x85) and user names;
- of a Remaining Length of five bytes, a ping with bytes behind its header, a DISCONNECT with a reason code that it
  cannot have, and a CONNECT without the user name that it promises, nobody is told: the connection ends;
- what is wrong with SUBSCRIBE, UNSUBSCRIBE or a topic name is malformed (0x81), also where §3.3, §3.8 and §3.10 speak
  of a protocol error; a shared subscription without a name or a filter is a protocol error (0x82);
- PUBREL and PUBREC of an unknown identifier are answered as any other;
- a QoS 2 publish whose identifier is in use is another message when it has no DUP and another topic or payload; who
  sends the same one for the third time on a connection has broken the protocol (but in 3.1);
- nothing is published to what begins with `$share/` (0x87);
- PUBACK says 0x10 where nobody subscribes;
- a protocol level that nobody has yet is refused in the form of 5.0 (0x84), an unknown protocol name without a word;
- an acknowledgement of another QoS is a protocol error;
- so is a property that its packet may not have (0x82; in SUBSCRIBE and UNSUBSCRIBE 0x81, as §2.2.2.2 has it);
- the bit 0x80 of the protocol level (3.1, 3.1.1) is a bridge's: it gets RETAIN as published, and nothing of its own;
- topics have at most 200 slashes.

Different from Mosquitto:

- subscriptions that overlap bring one copy, with all their identifiers;
- a message of QoS 2 is delivered when it is stored, not when it is released;
- client identifiers that begin with `$ingest/` or `$egress/` are refused (0x85; 3.1.1: 2): they name other brokers;
- a DISCONNECT with any reason but 0x00 publishes the will, and a take-over does.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of a table."""

    version: str
    identifier: str
    words: str
    same_as: str
    """The statement of 5.0 that says the same; empty: none."""
    reason: str
    """Why there is no test; empty: there has to be one."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test function and what its docstring names."""

    folder: str
    """Below tests/."""
    file: str
    name: str
    has_both_versions: bool
    named: tuple[tuple[str, str], ...]
    """(Version, statement)."""


def statements() -> list[Statement]:
    """All of them, in the order of the file."""
    tables: dict[str, dict[str, str]] = tomllib.loads(STATEMENTS.read_text(encoding="utf-8"))
    found: list[Statement] = []
    for version in VERSIONS:
        reasons = tables[f"{version} without a test"]
        for identifier, words in tables[version].items():
            same_as = words[2:] if words.startswith("= ") else ""
            words = tables["5.0"][same_as] if same_as else words
            reason = reasons.get(identifier, "")
            if same_as and not reason:
                reason = tables["5.0 without a test"].get(same_as, "")
            found.append(Statement(version, identifier, words, same_as, reason))
    return found


def tests() -> list[Test]:
    """Every test of the folder, by file and line."""
    found: list[Test] = []
    for path in (*sorted(TESTS.glob("test_*.py"), key=_chapter), WEBSOCKET_TESTS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named = [
                    ("3.1.1" if suffix else "5.0", number)
                    for number, suffix in NAMED.findall(ast.get_docstring(node) or "")
                ]
                arguments = {argument.arg for argument in node.args.args}
                has_both = "version" in arguments or path == WEBSOCKET_TESTS
                found.append(Test(path.parent.name, path.name, node.name, has_both, tuple(named)))
    return found


def _chapter(path: Path) -> tuple[Any, ...]:
    """Chapter 3.10 comes after 3.8."""
    return (*[int(number) for number in re.findall(r"\d+", path.name)], path.name)


def tests_by_statement(all_tests: list[Test], all_statements: list[Statement]) -> dict[tuple[str, str], list[Test]]:
    """The tests of each (version, statement)."""
    found: dict[tuple[str, str], list[Test]] = {}
    for test in all_tests:
        for key in test.named:
            found.setdefault(key, []).append(test)
    for statement in all_statements:
        if not statement.same_as:
            continue
        mine = found.setdefault((statement.version, statement.identifier), [])
        mine += [
            test for test in found.get(("5.0", statement.same_as), ()) if test.has_both_versions and test not in mine
        ]
    return found


def text() -> str:
    """The whole page."""
    all_statements = statements()
    by_statement = tests_by_statement(tests(), all_statements)
    lines = [HEAD]
    for version in VERSIONS:
        mine = [statement for statement in all_statements if statement.version == version]
        tested = [statement for statement in mine if by_statement.get((version, statement.identifier))]
        lines += [
            f"## MQTT {version}",
            "",
            f"{len(mine)} statements: {len(tested)} with tests, {len(mine) - len(tested)} with a reason for none.",
            "",
            "| | what | tests |",
            "| --- | --- | --- |",
        ]
        lines += [_row(statement, by_statement) for statement in mine]
        lines.append("")
    return "\n".join(lines)


def _row(statement: Statement, by_statement: dict[tuple[str, str], list[Test]]) -> str:
    names = [
        f"[{test.name.removeprefix('test_').replace('_', ' ')}](../tests/{test.folder}/{test.file})"
        for test in by_statement.get((statement.version, statement.identifier), ())
    ]
    cell = "<br>".join(names) if names else f"none: {statement.reason}"
    return f"| MQTT-{statement.identifier} | {statement.words} | {cell} |"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
