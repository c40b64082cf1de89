"""Compiles the hot modules by mypyc into build/compiled/, from where `broker.compiled` loads them.

Run it: `make compiled`. It needs a C compiler and the headers of Python; without them everything runs as plain Python.
What it makes is for these sources and this Python only; nothing is done when it is there already.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from broker.compiled import DIRECTORY, MANIFEST, ROOT, compiled_files, source_hash

GROUP = "headrace_compiled"
PATTERNS = (
    "broker/codec/*.py",
    "broker/delivery.py",
    "broker/engine.py",
    "broker/metrics.py",
    "broker/outbox.py",
    "broker/protocol/*.py",
    "broker/protocol/handlers/*.py",
    "broker/publish_run.py",
    "broker/replay.py",
    "broker/retained.py",
    "broker/retained_frames.py",
    "broker/routing.py",
    "broker/sessions/*.py",
    "broker/shared.py",
    "broker/sink.py",
    "broker/sys_topics.py",
    "broker/topics/*.py",
    "broker/turn.py",
    "bridge/bare_frames.py",
    "bridge/encoding.py",
    "bridge/figures.py",
    "bridge/history/numbers.py",
    "bridge/ingest/intake.py",
    "bridge/live/entries.py",
    "bridge/live/group.py",
    "bridge/live/window.py",
    "bridge/publish_frames.py",
    "bridge/records.py",
    "bridge/streams/frames.py",
    "bridge/streams/kept_runs.py",
    "bridge/streams/kafka/batches.py",
    "bridge/streams/kafka/headers.py",
    "bridge/streams/kafka/keys.py",
    "bridge/streams/kafka/plain_records.py",
    "bridge/streams/kafka/records.py",
)
"""What a message passes on its way, and nothing else: the rest would compile slowly and gain nothing. None has a
coroutine: what waits gains nothing either."""


def sources() -> list[str]:
    """Paths below the root of the modules to compile."""
    found = [path.relative_to(ROOT) for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
    return [str(path) for path in found if path.name != "__init__.py"]


def build(work: Path) -> dict[str, Path]:
    """Compile in `work`; returns the extensions there by name of module."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    extensions = mypycify(
        ["--config-file", "pyproject.toml", *sources()],
        opt_level="2",
        debug_level="0",
        group_name=GROUP,
        target_dir=str(work / "c"),
    )
    command = build_ext(Distribution({"name": GROUP, "script_name": "", "ext_modules": extensions}))
    command.build_lib = str(work / "lib")
    command.build_temp = str(work / "objects")
    command.ensure_finalized()
    command.run()
    suffix = EXTENSION_SUFFIXES[0]
    files = (work / "lib").rglob(f"*{suffix}")
    return {str(file.relative_to(work / "lib")).removesuffix(suffix).replace("/", "."): file for file in files}


def publish(built: dict[str, Path]) -> None:
    """Put the extensions in their place; who starts meanwhile finds all or none of them."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    modules = {}
    for name, file in built.items():
        modules[name] = name + EXTENSION_SUFFIXES[0]
        shutil.copy2(file, DIRECTORY / modules[name])
    manifest = {
        "python": EXTENSION_SUFFIXES[0],
        "sources": {path: source_hash(ROOT / path) for path in sources()},
        "modules": modules,
    }
    (DIRECTORY / f"{MANIFEST}.new").write_text(json.dumps(manifest, indent=1))
    (DIRECTORY / f"{MANIFEST}.new").rename(DIRECTORY / MANIFEST)


def is_up_to_date() -> bool:
    """What is there was made of these sources, and of all of them."""
    return bool(compiled_files()) and set(json.loads((DIRECTORY / MANIFEST).read_bytes())["sources"]) == set(sources())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One compiles; who comes meanwhile waits until it is done, or was broken off."""
    DIRECTORY.parent.mkdir(parents=True, exist_ok=True)
    with DIRECTORY.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_all() -> None:
    """Compile every module, and put the extensions in their place."""
    before = {path: source_hash(ROOT / path) for path in sources()}
    with tempfile.TemporaryDirectory() as work:
        built = build(Path(work))
        if before != {path: source_hash(ROOT / path) for path in sources()}:
            sys.exit("error: sources changed while they were compiled; once more: make compiled")
        publish(built)
    print(f"compiled     {len(built) - 1} modules by mypyc, for this Python")


def main() -> None:
    """Compile, unless that has been done for these sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compile nothing; exit with 1 when there is nothing to use"
    )
    arguments = parser.parse_args()
    if is_up_to_date():
        print("compiled     up to date")
        return
    if arguments.check:
        sys.exit(1)
    with alone():
        if is_up_to_date():
            print("compiled     up to date")
        else:
            compile_all()


if __name__ == "__main__":
    main()
