"""Where in a configuration a mistake stands, and the words for it: file, line, key and the nearest valid key.

The line finder knows as much of TOML as that needs: headers, keys, arrays of tables and strings over several lines.
What is valid TOML is tomllib's to say.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence

KeyPath = tuple[str | int, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_TABLE = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]\s*(?:#.*)?")
_TABLE_ARRAY = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]\s*(?:#.*)?")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=(.*)", re.DOTALL)
_ONE_KEY = re.compile(_KEY)
_MULTILINE_QUOTES = ('"""', "'''")


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table and key of a TOML text, by its path; members of an array of tables by index."""
    line_by_path: dict[KeyPath, int] = {}
    last_index: dict[KeyPath, int] = {}
    table: KeyPath = ()
    open_quotes = ""
    for number, line in enumerate(text.splitlines(), 1):
        if open_quotes:
            if open_quotes in line:
                open_quotes = ""
            continue
        if found := _TABLE_ARRAY.fullmatch(line):
            path = _resolve(_keys(found[1]), last_index)
            last_index[path] = last_index.get(path, -1) + 1
            table = (*path, last_index[path])
            line_by_path.setdefault(path, number)
            line_by_path.setdefault(table, number)
        elif found := _TABLE.fullmatch(line):
            table = _resolve(_keys(found[1]), last_index)
            line_by_path.setdefault(table, number)
        elif found := _ASSIGNMENT.fullmatch(line):
            line_by_path.setdefault((*table, *_keys(found[1])), number)
            open_quotes = next((quotes for quotes in _MULTILINE_QUOTES if found[2].count(quotes) % 2), "")
    return line_by_path


def line_of(path: KeyPath, line_by_path: dict[KeyPath, int]) -> int | None:
    """The line of a key, or of the nearest thing around it that has one."""
    while path:
        if path in line_by_path:
            return line_by_path[path]
        path = path[:-1]
    return None


def section_text(path: KeyPath) -> str:
    """A table's path as its header stands in the file: `[mqtt]`, `[[streams]]`, `[[streams]] retention`."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return "the configuration"
    for position, part in enumerate(path):
        if isinstance(part, int):
            inner = ".".join(str(each) for each in path[position + 1 :])
            return f"[[{'.'.join(str(each) for each in path[:position])}]]" + (f" {inner}" if inner else "")
    return f"[{'.'.join(names)}]"


def unknown_key_text(path: KeyPath, known: Iterable[str], *, is_table: bool = False) -> str:
    """`[[streams]] has no key "retension". Did you mean "retention"?`"""
    name = str(path[-1])
    where = section_text(path[:-1])
    text = f"{where} has no {'section' if is_table and len(path) == 1 else 'key'} " + (
        f"[{name}]." if is_table and len(path) == 1 else f'"{name}".'
    )
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'{text} Did you mean "{nearest[0]}"?' if nearest else f"{text} It has: {', '.join(sorted(known))}."


def quoted(text: str) -> str:
    """A text as TOML has it, with all control characters escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _resolve(keys: Sequence[str], last_index: dict[KeyPath, int]) -> KeyPath:
    """A header's path; where it goes through an array of tables, TOML means that array's last member."""
    path: KeyPath = ()
    for position, key in enumerate(keys):
        path = (*path, key)
        if path in last_index and position < len(keys) - 1:
            path = (*path, last_index[path])
    return path


def _keys(dotted: str) -> list[str]:
    return [key.strip("\"'") for key in _ONE_KEY.findall(dotted)]
