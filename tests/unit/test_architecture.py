"""The rules that the tree keeps: who may import whom, and what the engine must not touch.

`a <- b` below reads: b may import a.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "bridge", "devices")

SANS_IO = (
    "broker/codec",
    "broker/topics",
    "broker/sessions",
    "broker/protocol",
    "broker/replay.py",
    "broker/routing.py",
    "broker/shared.py",
    "broker/hooks.py",
    "broker/outbox.py",
    "broker/kept_sessions.py",
    "broker/owed.py",
    "broker/stored_origin.py",
    "broker/restore.py",
    "broker/retained.py",
    "broker/store.py",
    "broker/sys_topics.py",
    "broker/due.py",
    "broker/engine.py",
    "broker/inlet.py",
)
"""No coroutine, no socket and no clock: time is an argument."""

BROKER_LAYERS = (
    (
        "broker.compiled",
        "broker.codec",
        "broker.topics",
        "broker.config",
        "broker.sink",
        "broker.replay",
        "broker.store",
        "broker.publish_run",
        "broker.limit_hits",
        "broker.due",
        "broker.metrics",
        "broker.presence",
    ),
    (
        "broker.delivery",
        "broker.outbox",
        "broker.sessions",
        "broker.routing",
        "broker.shared",
        "broker.hooks",
        "broker.retained",
        "broker.retained_frames",
        "broker.kept_sessions",
        "broker.own_publishes",
        "broker.owed",
        "broker.stored_origin",
    ),
    ("broker.protocol",),
    ("broker.restore", "broker.sys_topics", "broker.engine"),
    ("broker.loop_delay", "broker.turn", "broker.inlet"),
    ("broker.listeners",),
    ("broker.server",),
    ("broker.pytest_plugin",),
)
"""A module imports its own layer and those before it (for types alone, any)."""

BRIDGE_MAY_IMPORT_OF_BROKER = (
    "broker.compiled",
    "broker.__version__",
    "broker.sink",
    "broker.store",
    "broker.replay",
    "broker.server",
    "broker.codec",
    "broker.topics",
    "broker.config",
    "broker.publish_run",
    "broker.metrics",
    "broker.limit_hits",
    "broker.presence",
    "broker.routing.RESERVED_PREFIXES",
    "broker.routing.is_reserved",
)
COMPOSITION = ("bridge.cli",)
"""May import everything, the simulated fleet too."""


def modules(*parts: str) -> list[tuple[str, Path]]:
    """Name and path of every module below some folders or files of the tree."""
    found = []
    for part in parts:
        path = ROOT / part
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            if "node_modules" not in file.parts:
                name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found.append((name, file))
    return found


@cache
def tree_of(file: Path) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path, *, with_types: bool = True) -> tuple[str, ...]:
    """Names that a file imports; without those under `if TYPE_CHECKING` when they are not asked for."""
    tree = tree_of(file)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in for_types and not with_types:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


def is_below(name: str, *parents: str) -> bool:
    """Whether a module is one of `parents` or inside one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def imports_below(parts: tuple[str, ...], *forbidden: str, with_types: bool = True) -> list[str]:
    """`a imports b` for every import of something forbidden in some parts of the tree."""
    return [
        f"{name} imports {each}"
        for name, file in modules(*parts)
        for each in imports(file, with_types=with_types)
        if is_below(each, *forbidden)
    ]


def test_broker_knows_neither_bridge_nor_http() -> None:
    forbidden = ("bridge", "devices", "fastapi", "starlette", "uvicorn", "pydantic", "sqlite3", "aiokafka")
    assert not imports_below(("broker",), *forbidden)


def test_bridge_knows_the_brokers_doors_only() -> None:
    """`broker.routing` and the rest of the engine are for types alone."""
    of_broker = imports_below(("bridge",), "broker", with_types=False)
    assert not [each for each in of_broker if not is_below(each.split()[-1], *BRIDGE_MAY_IMPORT_OF_BROKER)]


def test_only_the_command_line_knows_the_fleet() -> None:
    found = imports_below(("bridge",), "devices")
    assert not [each for each in found if not is_below(each.split()[0], *COMPOSITION)]


def test_devices_are_strangers() -> None:
    """The fleet is an interoperability test: of ours it knows the codec alone, and the bench whether it is compiled."""
    found = imports_below(("devices",), "broker", "bridge")
    assert not [each for each in found if not is_below(each.split()[-1], "broker.codec", "broker.compiled")]


def test_broker_layers_look_down_only() -> None:
    found = []
    for name, file in modules("broker"):
        own = next((index for index, layer in enumerate(BROKER_LAYERS) if is_below(name, *layer)), None)
        if own is None:
            assert name == "broker", f"{name} is in no layer: add it to BROKER_LAYERS"
            continue
        above = [module for layer in BROKER_LAYERS[own + 1 :] for module in layer]
        found += [f"{name} imports {each}" for each in imports(file, with_types=False) if is_below(each, *above)]
    assert not found


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        ("bridge/records.py", ("bridge.streams", "bridge.live", "bridge.history", "bridge.routes")),
        ("bridge/streams", ("bridge.live", "bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/history", ("bridge.live", "bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/live", ("bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        (
            "bridge/remote",
            ("bridge.streams", "bridge.live", "bridge.ingest", "bridge.routes", "bridge.node", "bridge.app"),
        ),
        ("bridge/egress", ("bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/ingest", ("bridge.routes", "bridge.node", "bridge.app")),
    ],
)
def test_bridge_layers_look_down_only(part: str, forbidden: tuple[str, ...]) -> None:
    """records <- streams <- history, live <- routes, and ingest joins streams with live."""
    assert not imports_below((part,), *forbidden, with_types=False)


def test_engine_has_no_coroutine_no_socket_and_no_clock() -> None:
    assert not imports_below(SANS_IO, "asyncio", "socket", "time", "threading", "select")
    coroutines = [
        f"{name} line {node.lineno}"
        for name, file in modules(*SANS_IO)
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)
    ]
    assert not coroutines


def test_module_says_what_it_owns() -> None:
    silent = [
        name
        for name, file in modules(*PACKAGES, "scripts")
        if tree_of(file).body and not ast.get_docstring(tree_of(file))
    ]
    assert not silent


def test_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "helpers", "common", "misc", "manager"}
    assert not [name for name, file in modules(*PACKAGES) if file.stem in vague]


def test_errors_are_not_swallowed_without_a_word() -> None:
    """`except X: pass` hides what went wrong, unless the line says why nothing did."""
    swallowed = []
    for name, file in modules(*PACKAGES):
        lines = file.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ExceptHandler) and isinstance(node.body[0], ast.Pass):
                line = node.body[0].lineno
                swallowed += [f"{name} line {line}"] if "#" not in lines[line - 1] else []
    assert not swallowed
