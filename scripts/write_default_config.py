"""Writes config/headrace.toml from the settings classes: every key with what it means, its limits and its default.

A test compares the file with what this would write, so that neither can drift.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from bridge.cli.check_config import toml_value
from bridge.config import Config, StreamTable
from bridge.config_remote import EgressTable, IngestTable
from bridge.config_section import Section

FILE = Path(__file__).parent.parent / "config" / "headrace.toml"
WIDTH = 110
HEAD = """\
# Every key of Headrace's configuration, with its default. Lines that begin with "# KEY =" show the default: take the
# "# " away to change one. Use it with `headrace serve -c FILE`; `headrace check-config -c FILE` says what is in effect.
#
# An environment variable beats this file: HEADRACE_SECTION__KEY, like HEADRACE_MQTT__BIND=127.0.0.1:1884.
# A list or a table is written there as TOML. A command-line flag beats both. An unknown key or variable is an error.
#
# Sizes: bytes, or "64KiB", "1MiB", "10GiB". Times: seconds, or "90s", "30m", "24h", "7d".
# An absent or empty `bind` means: all addresses when there are users, this computer only when there are none.
"""
STREAMS = """\
# A stream is a named, replayable log. A topic belongs to the first stream whose filters match it: those below in their
# order, then `system` ($presence/#, $server/#; 30 d), then `default` (#; 24 h or 1 GiB). Repeat the table for each.
"""

REMOTES: tuple[tuple[str, type[Section], str], ...] = (
    (
        "ingest",
        IngestTable,
        "# Another broker whose messages are taken into the streams, as if its devices were ours (docs/bridging.md).\n"
        "# Repeat the table for each.\n",
    ),
    (
        "egress",
        EgressTable,
        "# Another broker that is sent what matches some filters, with the streams as its queue (docs/bridging.md).\n"
        "# Repeat the table for each.\n",
    ),
)


def lines() -> Iterator[str]:
    """The file, line by line."""
    yield from HEAD.splitlines()
    for name, field in Config.model_fields.items():
        if not isinstance(field.default, Section | tuple):
            yield from _key(field.alias or name, field)
    for name, field in Config.model_fields.items():
        if isinstance(field.default, Section):
            yield ""
            yield f"[{name}]"
            yield f"# {type(field.default).__doc__}"
            for key, inner in type(field.default).model_fields.items():
                yield from _key(key, inner)
    yield ""
    yield from STREAMS.splitlines()
    yield "# [[streams]]"
    for key, inner in StreamTable.model_fields.items():
        yield from _key(key, inner)
    for kind, table, head in REMOTES:
        yield ""
        yield from head.splitlines()
        yield f"# [[{kind}]]"
        for key, inner in table.model_fields.items():
            yield from _key(key, inner)


def _key(name: str, field: FieldInfo) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(_meaning(name, field), WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield f"# {name} = {_default(name, field)}"


def _meaning(name: str, field: FieldInfo) -> str:
    least = next((each.ge for each in field.metadata if isinstance(each, Ge)), None)
    most = next((each.le for each in field.metadata if isinstance(each, Le)), None)
    limits = [
        f"{word} {toml_value(limit, is_size='bytes' in name).strip(chr(34))}"
        for word, limit in (("at least", least), ("at most", most))
        if limit is not None
    ]
    return f"{field.description} ({_unit(name)}{', '.join(limits)})" if limits else str(field.description)


def _unit(name: str) -> str:
    if name.endswith("_ms"):
        return "milliseconds, "
    return "seconds, " if name.endswith(("_s", "_s_max")) and "_per_s" not in name else ""


def _default(name: str, field: FieldInfo) -> str:
    if field.examples:
        return _written(field.examples[0])
    default: Any = field.default
    return toml_value(default, is_size="bytes" in name)


def _written(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_written(each)}' for key, each in value.items())} }}"
    return json.dumps(value)


def text() -> str:
    """The whole file."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
