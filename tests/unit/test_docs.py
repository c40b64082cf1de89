"""The documents are true: keys, commands, links and addresses that they name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.config import Config, Kafka, StreamTable
from bridge.config_remote import EgressTable, IngestTable
from bridge.config_section import Section, key_names
from bridge.config_source import load_config
from bridge.quantities import size_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_PATH = re.compile(r"`((?:broker|bridge|devices|tests|scripts|config|docs|docker)/[A-Za-z0-9_./-]+)`")
NO_LIMITS = {
    *("level", "format", "bind", "allowed_origins", "root_path", "allow_anonymous", "shared_choice", "queued_drop"),
    *("bootstrap_servers", "security_protocol", "required", "compression"),
    *(key for key in key_names(Kafka) if key.startswith(("sasl_", "ssl_"))),
}
"""Keys that bound nothing."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_exist(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.split("#")[0]).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    for path in CODE_PATH.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_every_limit_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| [^|]+ \| `([a-z_.]+)` \| ([^|]+) \|", text, re.MULTILINE))
    keys = {
        f"{name}.{key}": getattr(getattr(Config(), name), key)
        for name in Config.model_fields
        if isinstance(getattr(Config(), name), Section)
        for key in key_names(type(getattr(Config(), name)))
        if key not in NO_LIMITS
    }
    keys |= {
        f"{kind}.{key}": field.default
        for kind, table in (("ingest", IngestTable), ("egress", EgressTable))
        for key, field in table.model_fields.items()
        if type(field.default) in (int, float) and key != "qos"
    }
    assert set(documented) == {*keys, "streams.retention.age", "streams.retention.bytes"}
    for key, value in keys.items():
        if "bytes" in key:
            assert documented[key] == size_text(value), key
        elif value is not None and documented[key] != "7 d":
            assert documented[key].split()[0] == f"{int(value):,}", key


def test_every_key_stands_in_the_documented_configuration() -> None:
    text = (ROOT / "config" / "headrace.toml").read_text(encoding="utf-8")
    tables = (getattr(Config(), name) for name in Config.model_fields)
    sections: list[type[Section]] = [type(table) for table in tables if isinstance(table, Section)]
    sections.append(StreamTable)
    for section in sections:
        for key in key_names(section):
            assert re.search(rf"^# {key} = ", text, re.MULTILINE), key


def test_configurations_that_documents_name_are_valid() -> None:
    for file in [*sorted((ROOT / "config").glob("*.toml")), ROOT / "docker" / "headrace.toml"]:
        load_config(file, {})


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^|`|\$ )make ([a-z-]+)\b", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, document.name


COMMAND = re.compile(
    r"headrace (serve|demo|simulate|check-config|bench|replay|backup|restore|streams [a-z-]+)\b([^\n`|]*)"
)


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md"])
def test_commands_and_options_that_documents_show_exist(capsys: pytest.CaptureFixture[str], document: str) -> None:
    lines = COMMAND.findall((ROOT / document).read_text(encoding="utf-8"))
    assert len({command for command, _ in lines}) >= 5
    for command, rest in lines:
        assert main([*command.split(), "--help"]) == 0, command
        described = capsys.readouterr().out
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest):
            assert option in described, f"headrace {command} {option}"


def test_every_make_target_says_what_it_does() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    assert {"setup", "run", "test", "check", "kafka-up", "kafka-down"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  make {target} +\S", listed.stdout, re.MULTILINE), target


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n# ")


def test_version_is_the_changelogs() -> None:
    from bridge import __version__

    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert sys.version_info >= (3, 11)
