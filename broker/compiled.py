"""Whether hot modules run compiled, and how they are found.

The modules that `scripts/compile_modules.py` names are plain Python, and run as such; compiled by mypyc they do the
same faster. `make compiled` (and `make run`, where there is a C compiler) puts the extensions in `build/compiled/` of a
checked-out tree, with a manifest of the sources that they were made from. They are loaded only while every one of these
sources is still the same: an extension beside an edited file would run in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT = Path(__file__).parent.parent
DIRECTORY = ROOT / "build" / "compiled"
MANIFEST = "manifest.json"
SWITCH = "HEADRACE_COMPILED"
"""Environment variable; `0`: run the plain modules, whatever there is."""


class CompiledModules(MetaPathFinder):
    """Finds the extensions of `DIRECTORY` before Python looks for the sources."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        """By name of module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The extension of this name; None: another finder's."""
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def use_compiled_modules() -> None:
    """Have the compiled modules loaded from now on, if there are any for these sources and this Python."""
    if os.environ.get(SWITCH) == "0" or any(isinstance(finder, CompiledModules) for finder in sys.meta_path):
        return
    files = compiled_files()
    if files:
        sys.meta_path.insert(0, CompiledModules(files))


def compiled_files() -> dict[str, Path]:
    """The extensions by name of module; none when one source has changed, or for another Python."""
    try:
        manifest = json.loads((DIRECTORY / MANIFEST).read_bytes())
        if manifest["python"] != EXTENSION_SUFFIXES[0]:
            return {}
        if any(source_hash(ROOT / path) != known for path, known in manifest["sources"].items()):
            return {}
        return {name: DIRECTORY / file for name, file in manifest["modules"].items()}
    except (OSError, ValueError, LookupError, TypeError):  # not built, or being built
        return {}


def source_hash(path: Path) -> str:
    """Of one source file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def how_it_runs() -> str:
    """`compiled` or `plain Python`, as loaded in this process."""
    from broker.codec import decode

    return "plain Python" if (decode.__file__ or "").endswith(".py") else "compiled"
