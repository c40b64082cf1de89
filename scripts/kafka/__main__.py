"""`python -m scripts.kafka fetch|up|down|clean|tool`: real Kafka on a laptop; see `make kafka-up`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from scripts.kafka.distribution import CACHE, TOOL_CLASSES, KafkaFetchFailed, KafkaMissing, find_java
from scripts.kafka.laptop import BROKER_COUNTS, DEFAULT_PORT, KafkaNotStarted, LaptopKafka
from scripts.kafka.node import HOST, KafkaDidNotStart
from scripts.kafka.preparation import prepare


def main(arguments: list[str] | None = None) -> int:
    """Exit code for a command line."""
    options = _parser().parse_args(arguments)
    kafka = LaptopKafka(options.directory, options.port)
    commands = {"fetch": _fetch, "up": _up, "down": _down, "clean": _clean, "tool": _tool}
    try:
        return commands[options.command](kafka, options)
    except (KafkaMissing, KafkaFetchFailed, KafkaNotStarted, KafkaDidNotStart) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts.kafka", description="Real Apache Kafka on this machine.")
    parser.add_argument("--directory", type=Path, default=CACHE, help="where data is kept (%(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the first broker (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="get its jars ready, so that the next start is quick")
    up = commands.add_parser("up", help="start brokers, wait until they serve, leave them running")
    up.add_argument("--brokers", type=int, choices=BROKER_COUNTS, default=1)
    commands.add_parser("down", help="stop them; their data stays")
    commands.add_parser("clean", help="remove their data")
    tool = commands.add_parser("tool", help="one of Kafka's own tools, against this Kafka")
    tool.add_argument("name", choices=sorted(TOOL_CLASSES))
    tool.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _fetch(kafka: LaptopKafka, options: argparse.Namespace) -> int:
    find_java()  # before anything is said or fetched
    if not kafka.distribution.is_fetched:
        print("kafka        fetching its jars from Maven Central (44 MB, once)", file=sys.stderr)
    prepare(kafka.distribution)
    return 0


def _up(kafka: LaptopKafka, options: argparse.Namespace) -> int:
    _fetch(kafka, options)
    nodes, is_new = kafka.up(options.brokers)
    for node in nodes:
        print(f"kafka        {node.address}  pid {node.pid}{'' if is_new else '  (was up already)'}")
    print(f"data         {nodes[0].directory.parent}")
    return 0


def _down(kafka: LaptopKafka, options: argparse.Namespace) -> int:
    ran, killed = kafka.down()
    for node in ran:
        fate = "killed: it did not end in time" if node in killed else "stopped"
        print(f"kafka        {node.address}  pid {node.pid} {fate}")
    print(f"data         kept in {ran[0].directory.parent}" if ran else "kafka        is not running")
    return 0


def _clean(kafka: LaptopKafka, options: argparse.Namespace) -> int:
    for folder in kafka.clean():
        print(f"removed      {folder}")
    return 0


def _tool(kafka: LaptopKafka, options: argparse.Namespace) -> int:
    _fetch(kafka, options)
    address = ("--bootstrap-server", f"{HOST}:{options.port}")
    return subprocess.run(kafka.distribution.tool(options.name, *address, *options.arguments)).returncode


if __name__ == "__main__":
    sys.exit(main())
