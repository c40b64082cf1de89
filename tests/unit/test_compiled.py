"""Compiled modules are loaded while they belong to the sources, and not otherwise."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from broker import compiled
from broker.replay import PublishRows
from scripts.compile_modules import sources


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of one module in a tree of its own."""
    (tmp_path / "part.py").write_text("NUMBER = 1\n")
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "DIRECTORY", tmp_path)
    return {
        "python": EXTENSION_SUFFIXES[0],
        "sources": {"part.py": compiled.source_hash(tmp_path / "part.py")},
        "modules": {"part": "part.so"},
    }


def write(manifest: dict[str, Any]) -> None:
    (compiled.DIRECTORY / compiled.MANIFEST).write_text(json.dumps(manifest))


def test_extensions_of_these_sources_are_found(manifest: dict[str, Any]) -> None:
    write(manifest)
    files = compiled.compiled_files()
    assert files == {"part": compiled.DIRECTORY / "part.so"}
    finder = compiled.CompiledModules(files)
    spec = finder.find_spec("part", None)
    assert spec is not None
    assert spec.origin == str(compiled.DIRECTORY / "part.so")
    assert finder.find_spec("other", None) is None


def test_a_changed_source_runs_as_it_is(manifest: dict[str, Any]) -> None:
    write(manifest)
    (compiled.ROOT / "part.py").write_text("NUMBER = 2\n")
    assert compiled.compiled_files() == {}
    (compiled.ROOT / "part.py").unlink()
    assert compiled.compiled_files() == {}


def test_extensions_of_another_python_are_left(manifest: dict[str, Any]) -> None:
    write({**manifest, "python": ".cpython-399-somewhere.so"})
    assert compiled.compiled_files() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"python": 1'])
def test_an_unfinished_manifest_is_none(manifest: dict[str, Any], text: str) -> None:
    (compiled.DIRECTORY / compiled.MANIFEST).write_text(text)
    assert compiled.compiled_files() == {}


def test_nothing_that_is_compiled_has_a_coroutine() -> None:
    """What waits gains nothing by it, and mypyc's coroutines need not be Python's in every case."""
    found = [
        f"{source} line {node.lineno}"
        for source in sources()
        for node in ast.walk(ast.parse((compiled.ROOT / source).read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    assert not found


def test_rows_of_a_replay_cross_to_another_process() -> None:
    rows = PublishRows([9, 20], [5, 14], [(2, 1)])
    copy = pickle.loads(pickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL))
    assert (copy.ends, copy.id_places, copy.stretches) == ([9, 20], [5, 14], [(2, 1)])


@pytest.mark.parametrize(("switch", "expected"), [("0", "plain Python"), ("1", None)])
def test_the_switch_is_heard_and_it_is_said_how_it_runs(switch: str, expected: str | None) -> None:
    """With `1` it is what there is."""
    script = "from broker.compiled import compiled_files, how_it_runs; print(how_it_runs(), bool(compiled_files()))"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, compiled.SWITCH: switch},
        capture_output=True,
        text=True,
        check=True,
    )
    runs, are_there = shown.stdout.rsplit(maxsplit=1)
    assert runs == (expected or ("compiled" if are_there == "True" else "plain Python"))
