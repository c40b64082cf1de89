"""The rules that the tree keeps: who may import whom, and what the engine must not touch.

`a <- b` below reads: b may import a.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "bridge", "devices")

SANS_IO = (
    "broker/codec",
    "broker/topics",
    "broker/sessions",
    "broker/protocol",
    "broker/routing.py",
    "broker/outbox.py",
    "broker/engine.py",
)
"""No coroutine, no socket and no clock: time is an argument."""

BROKER_LAYERS = (
    ("broker.codec", "broker.topics", "broker.config", "broker.sink", "broker.publish_run", "broker.metrics"),
    ("broker.delivery", "broker.outbox", "broker.sessions", "broker.routing", "broker.retained"),
    ("broker.protocol",),
    ("broker.engine",),
    ("broker.turn",),
    ("broker.listeners",),
    ("broker.server",),
)
"""A module imports its own layer and those before it (for types alone, any)."""

BRIDGE_MAY_IMPORT_OF_BROKER = (
    "broker.sink",
    "broker.server",
    "broker.codec",
    "broker.topics",
    "broker.config",
    "broker.publish_run",
    "broker.metrics",
    "broker.routing.RESERVED_PREFIXES",
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


def imports(file: Path, *, with_types: bool = True) -> Iterator[str]:
    """Modules that a file imports; without those under `if TYPE_CHECKING` when they are not asked for."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not with_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, *parents: str) -> bool:
    """Whether a module is one of `parents` or inside one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize(("name", "file"), modules("broker"))
def test_broker_knows_neither_bridge_nor_http(name: str, file: Path) -> None:
    forbidden = ("bridge", "devices", "fastapi", "starlette", "uvicorn", "pydantic", "sqlite3", "aiokafka")
    assert not [each for each in imports(file) if is_below(each, *forbidden)]


@pytest.mark.parametrize(("name", "file"), modules("bridge"))
def test_bridge_knows_the_brokers_doors_only(name: str, file: Path) -> None:
    """`broker.routing` and the rest of the engine are for types alone."""
    of_broker = [each for each in imports(file, with_types=False) if is_below(each, "broker") and each != "broker"]
    assert not [each for each in of_broker if not is_below(each, *BRIDGE_MAY_IMPORT_OF_BROKER)]
    if not is_below(name, *COMPOSITION):
        assert not [each for each in imports(file) if is_below(each, "devices")]


@pytest.mark.parametrize(("name", "file"), modules("devices"))
def test_devices_are_strangers(name: str, file: Path) -> None:
    """The fleet is an interoperability test: of ours it knows the codec alone."""
    allowed = ("broker.codec",)
    ours = [each for each in imports(file) if is_below(each, "broker", "bridge") and each not in ("broker", "bridge")]
    assert not [each for each in ours if not is_below(each, *allowed)]


@pytest.mark.parametrize(("name", "file"), modules("broker"))
def test_broker_layers_look_down_only(name: str, file: Path) -> None:
    own = next((index for index, layer in enumerate(BROKER_LAYERS) if is_below(name, *layer)), None)
    if own is None:
        assert name == "broker", f"{name} is in no layer: add it to BROKER_LAYERS"
        return
    above = [module for layer in BROKER_LAYERS[own + 1 :] for module in layer]
    assert not [each for each in imports(file, with_types=False) if is_below(each, *above)]


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        ("bridge/records.py", ("bridge.streams", "bridge.live", "bridge.history", "bridge.routes")),
        ("bridge/streams", ("bridge.live", "bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/history", ("bridge.live", "bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/live", ("bridge.ingest", "bridge.routes", "bridge.node", "bridge.app")),
        ("bridge/ingest", ("bridge.routes", "bridge.node", "bridge.app")),
    ],
)
def test_bridge_layers_look_down_only(part: str, forbidden: tuple[str, ...]) -> None:
    """records <- streams <- history, live <- routes, and ingest joins streams with live."""
    found = [
        f"{name} imports {each}"
        for name, file in modules(part)
        for each in imports(file, with_types=False)
        if is_below(each, *forbidden)
    ]
    assert not found


@pytest.mark.parametrize(("name", "file"), modules(*SANS_IO))
def test_engine_has_no_coroutine_no_socket_and_no_clock(name: str, file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)]
    assert not [each for each in imports(file) if is_below(each, "asyncio", "socket", "time", "threading", "select")]


@pytest.mark.parametrize(("name", "file"), modules(*PACKAGES, "scripts"))
def test_module_says_what_it_owns(name: str, file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, f"{name} has no docstring"


@pytest.mark.parametrize(("name", "file"), modules(*PACKAGES))
def test_names_say_what_is_inside(name: str, file: Path) -> None:
    assert file.stem not in {"utils", "util", "helpers", "common", "misc", "manager"}


@pytest.mark.parametrize(("name", "file"), modules(*PACKAGES))
def test_errors_are_not_swallowed_without_a_word(name: str, file: Path) -> None:
    """`except X: pass` hides what went wrong, unless the line says why nothing did."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    swallowed = [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
        if "#" not in lines[node.body[0].lineno - 1]
    ]
    assert not swallowed
