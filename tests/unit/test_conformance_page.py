"""docs/conformance.md is what statements and tests say, and leaves nothing open."""

from __future__ import annotations

from scripts import conformance


def test_the_page_is_up_to_date() -> None:
    assert conformance.FILE.read_text(encoding="utf-8") == conformance.text(), (
        "docs/conformance.md is not up to date: .venv/bin/python -m scripts.conformance"
    )


def test_each_statement_has_a_test_or_a_reason_for_none() -> None:
    all_statements = conformance.statements()
    by_statement = conformance.tests_by_statement(conformance.tests(), all_statements)
    for statement in all_statements:
        has_tests = bool(by_statement.get((statement.version, statement.identifier)))
        assert has_tests or statement.reason, f"MQTT {statement.version} {statement.identifier}"


def test_tests_name_statements_that_are_there() -> None:
    known = {(statement.version, statement.identifier) for statement in conformance.statements()}
    for test in conformance.tests():
        for version, identifier in test.named:
            assert (version, identifier) in known, f"{test.file} {test.name} names MQTT-{identifier} of {version}"
