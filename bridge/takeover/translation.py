"""Translation: another broker's configuration as ours, and what of it has no equivalent here, by line.

A note is about one line and says why, and what to do instead. Translators fill in a `Translation`; `text` is a file
that `check-config -c` takes, with the notes as comments on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.config_text import quoted


class CannotTranslate(Exception):
    """The file cannot be read, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Note:
    """One line that could not be taken as it is."""

    place: Place
    what: str
    """The option, as it is written there."""
    text: str


@dataclass(slots=True)
class Translation:
    """What a translator found."""

    source: str
    kind: str
    """Whose configuration it is, for people."""
    values: dict[str, Any] = field(default_factory=dict)
    """As TOML has them: tables, and lists of tables under `streams`, `ingest`, `egress`."""
    notes: list[Note] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What holds for the whole file."""

    def note(self, place: Place, what: str, text: str) -> None:
        """A line without an equivalent."""
        self.notes.append(Note(place, what, text))

    def place_text(self, place: Place) -> str:
        """`line 7`, with the file where it is an included one."""
        return f"line {place.line}" if place.file == self.source else f"{place.file} line {place.line}"

    def put(self, section: str, key: str, value: object) -> None:
        """Set one key of a table."""
        self.values.setdefault(section, {})[key] = value

    def text(self) -> str:
        """The TOML, with the notes on top."""
        return "\n".join(_lines(self)) + "\n"


def _lines(translation: Translation) -> Iterator[str]:
    yield f"# {translation.source} ({translation.kind}) for Headrace."
    yield "# Check it with: headrace check-config -c FILE"
    if translation.notes:
        yield "#"
        yield f"# Without an equivalent ({len(translation.notes)}):"
        for note in translation.notes:
            yield f"#   {translation.place_text(note.place)}: {one_line(note.what)}: {note.text}"
    for remark in translation.remarks:
        yield "#"
        yield from (f"# {line}" for line in remark.splitlines())
    yield from toml_lines(translation.values)


def toml_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Nested values as TOML: plain keys first, then tables, then lists of tables."""
    yield from (f"{key} = {_value(value)}" for key, value in values.items() if not _is_table(value))
    for key, value in values.items():
        for table in value if isinstance(value, list) else [value] if isinstance(value, dict) else ():
            yield ""
            yield f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
            yield from (f"{name} = {_value(each)}" for name, each in table.items())


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(each) for each in value)}]"
    raise TypeError(f"no way to write {value!r}")


def one_line(text: str) -> str:
    """A text as it may stand in a comment: printable, and not too long."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= 80 else shown[:79] + "…"
