"""KafkaDistribution: the jars of Kafka in a cache folder, fetched once, and the Java command that runs them.

It owns what has to be installed and says what is missing; processes belong to `node`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
POM = HERE / "pom.xml"
CACHE = ROOT / "build" / "kafka"

FETCH_TIMEOUT_S = 300.0
TOOL_TIMEOUT_S = 60.0
JAVA_VERSION_MIN = 17

SMALL_JAVA_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Up in 1.5 s with 200 MB instead of 2.5 s with 250 MB, at a third of the peak throughput: for tests, not for speed."""

QUIET_ABOUT_ARCHIVES = ("-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-Xlog:class+path=off")

TOOL_CLASSES = {
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "acls": "org.apache.kafka.tools.AclCommand",
}
"""Kafka's own command-line tools, by the names of their scripts in an installation of Kafka."""


class KafkaMissing(Exception):
    """Something has to be installed first; the text says what and how."""


class KafkaFetchFailed(Exception):
    """The jars could not be had; the text holds what Maven said."""


class KafkaDistribution:
    """Jars in `cache`/lib. Several processes may fetch at once: one does, the others wait for it."""

    def __init__(self, cache: Path = CACHE) -> None:
        self.libraries = cache.resolve() / "lib"

    @property
    def class_archive(self) -> Path:
        """Classes as Java keeps them in memory, which halve the time to start (made by `preparation`); or nothing."""
        return self.libraries / "classes.jsa"

    @property
    def is_fetched(self) -> bool:
        """Whether the jars of the present pom.xml are there."""
        stamp = self.libraries / POM.name
        return stamp.exists() and stamp.read_bytes() == POM.read_bytes()

    def fetch(self) -> bool:
        """Make sure that Java and the jars are there; returns whether something had to be fetched.

        Raises:
            KafkaMissing: no Java, a Java too old, or no Maven though the jars have to be fetched.
            KafkaFetchFailed: Maven did not get the jars.
        """
        find_java()
        if self.is_fetched:
            return False
        self.libraries.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.libraries.with_name("lib.lock")):
            if self.is_fetched:
                return False
            self._fetch_with_maven()
        return True

    def _fetch_with_maven(self) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise KafkaMissing(
                "Kafka's jars come from Maven Central, and there is no mvn. "
                "Install Maven (Debian, Ubuntu: sudo apt-get install maven; macOS: brew install maven)."
            )
        fresh = self.libraries.with_name("lib.new")
        shutil.rmtree(fresh, ignore_errors=True)
        command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise KafkaFetchFailed(
                f"mvn did not fetch Kafka within {FETCH_TIMEOUT_S:.0f} s. Is there a network?"
            ) from None
        if done.returncode != 0:
            raise KafkaFetchFailed(
                f"mvn could not fetch Kafka (exit code {done.returncode}). It said:\n{done.stdout}{done.stderr}"
            )
        shutil.copy(POM, fresh / POM.name)
        shutil.rmtree(self.libraries, ignore_errors=True)
        fresh.rename(self.libraries)

    def java(self, main_class: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs a class of the jars."""
        if self.class_archive.exists():  # one that another Java made is passed over, quietly
            options = (f"-XX:SharedArchiveFile={self.class_archive}", *QUIET_ABOUT_ARCHIVES, *options)
        return [find_java(), *options, "-cp", f"{self.libraries}/*", main_class, *arguments]

    def tool(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of `TOOL_CLASSES`, or of a class by its full name."""
        options = (*SMALL_JAVA_OPTIONS, f"-Dlog4j2.configurationFile={HERE / 'log4j2-tool.properties'}")
        return self.java(TOOL_CLASSES.get(name, name), *arguments, options=options)

    def run_tool(
        self, name: str, *arguments: str, stdin_text: str = "", timeout_s: float = TOOL_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool to its end; its exit code is the caller's affair."""
        return subprocess.run(
            self.tool(name, *arguments), input=stdin_text, capture_output=True, text=True, timeout=timeout_s
        )


def find_java() -> str:
    """The path of a Java that runs Kafka 4.

    Raises:
        KafkaMissing: there is none, or it is too old.
    """
    advice = (
        f"Install Java {JAVA_VERSION_MIN} or newer "
        "(Debian, Ubuntu: sudo apt-get install default-jre-headless; macOS: brew install openjdk), or set JAVA_HOME."
    )
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        raise KafkaMissing(
            f"Kafka runs on Java, and there is no java{f' in JAVA_HOME={home}' if home else ''}. {advice}"
        )
    version = java_version(java)
    if version < JAVA_VERSION_MIN:
        raise KafkaMissing(
            f"Kafka 4 needs Java {JAVA_VERSION_MIN}; {java} is Java {version or 'of no known version'}. {advice}"
        )
    return java


_java_versions: dict[str, int] = {}


def java_version(java: str) -> int:
    """The major version of a Java program; 0 when it says none (macOS has a `java` that only asks to install one)."""
    if java not in _java_versions:
        done = subprocess.run(
            [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60
        )
        _, _, after = done.stderr.partition("java.specification.version = ")
        text = after.split("\n", 1)[0].strip().removeprefix("1.")
        _java_versions[java] = int(text) if text.isdigit() else 0
    return _java_versions[java]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; it ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
