"""The commands of `headrace bench`. Importing this module needs typer alone; numpy is asked for when a command runs."""

from __future__ import annotations

import importlib.util
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from devices.bench.results import Report
    from devices.bench.rounds import Plan

app = typer.Typer(
    help="Measure Headrace beside the brokers found on this machine: every message is checked, a loss fails the run.",
    no_args_is_help=True,
)

FILE_WIDTH = 130
EXIT_FAILED = 1
EXIT_USAGE = 2
HISTORY_RECORDS = 10_000_000

Rounds = Annotated[int, typer.Option(min=1, help="Rounds of each scenario, the servers taking turns.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Measured seconds of each run, after half a second of warm-up.")]
Only = Annotated[str | None, typer.Option(help="Scenarios to run, separated by commas.")]
Peers = Annotated[str | None, typer.Option(help="Servers to run, separated by commas; all that are found by default.")]
Payload = Annotated[int, typer.Option(min=48, help="Bytes of each payload.")]
Bootstrap = Annotated[
    str | None, typer.Option(help="host:port of a Kafka that is there, in place of one that the bench starts.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.", dir_okay=False)]


@app.command()
def mqtt(
    rounds: Rounds = 3,
    seconds: Seconds = 2.0,
    only: Only = None,
    peers: Peers = None,
    payload: Payload = 64,
    json_file: Json = None,
) -> None:
    """MQTT to MQTT, topics in a memory stream: rates by QoS and shape, transports and versions, 100 k topics and 100 k
    subscriptions; keeping (retained_store) and what was kept (retained, drain); delivery (latency). --only names some,
    and a wrong name lists all.
    """
    _require_numpy()
    from devices.bench.delivery import KEY as DELIVERY
    from devices.bench.kept import KEYS as KEPT
    from devices.bench.mqtt import SCENARIOS

    known = (*SCENARIOS, *KEPT, DELIVERY)
    keys = _choose(only, known, known)
    _run(_plan(rounds, seconds, peers, payload), json_file, lambda plan, report: _bench_mqtt(plan, report, keys))


def _bench_mqtt(plan: Plan, report: Report, keys: Sequence[str] | None = None) -> None:
    from devices.bench.delivery import KEY as DELIVERY
    from devices.bench.delivery import bench_delivery
    from devices.bench.kept import KEYS as KEPT
    from devices.bench.kept import bench_kept
    from devices.bench.mqtt import SCENARIOS, bench_mqtt

    bench_mqtt(plan, report, [key for key in SCENARIOS if keys is None or key in keys])
    bench_kept(plan, report, [key for key in KEPT if keys is None or key in keys])
    if keys is None or DELIVERY in keys:
        bench_delivery(plan, report)


@app.command()
def stored(
    rounds: Rounds = 3,
    seconds: Seconds = 2.0,
    only: Only = None,
    peers: Peers = None,
    payload: Payload = 64,
    history: Annotated[
        bool, typer.Option("--history", help="Also a long log: memory, and a rare topic's first event.")
    ] = False,
    records: Annotated[int, typer.Option(min=1000, help="Records of the long log.")] = HISTORY_RECORDS,
    json_file: Json = None,
) -> None:
    """QoS 1 acknowledged once it is on disk: rates and latency (stored_1, stored_100, latency)."""
    _require_numpy()
    from devices.bench.history import bench_history
    from devices.bench.stored import LATENCY_KEY, SCENARIOS, bench_stored

    known = (*SCENARIOS, LATENCY_KEY)
    keys = _choose(only, (*known, "history"), known)

    def bench(plan: Plan, report: Report) -> None:
        bench_stored(plan, report, [key for key in keys if key != "history"])
        if history or "history" in keys:
            bench_history(plan, report, records)

    _run(_plan(rounds, seconds, peers, payload), json_file, bench)


@app.command()
def sse(
    rounds: Rounds = 3, seconds: Seconds = 2.0, only: Only = None, payload: Payload = 64, json_file: Json = None
) -> None:
    """MQTT through the log to 1 and 100 SSE readers (sse_1, sse_100), from a memory stream and from sqlite."""
    _require_numpy()
    from devices.bench.sse import SCENARIOS, bench_sse

    keys = _choose(only, tuple(SCENARIOS), tuple(SCENARIOS))
    _run(_plan(rounds, seconds, "headrace", payload), json_file, lambda plan, report: bench_sse(plan, report, keys))


@app.command()
def idle(rounds: Rounds = 1, only: Only = None, peers: Peers = None, json_file: Json = None) -> None:
    """Memory of the server for each of 10,000 idle MQTT connections and SSE readers, and how fast connections come
    (idle_mqtt, idle_sse, connects)."""
    _require_numpy()
    from devices.bench.idle import KEYS, bench_idle

    keys = _choose(only, KEYS, KEYS)
    _run(_plan(rounds, 0, peers, 64), json_file, lambda plan, report: bench_idle(plan, report, keys))


@app.command()
def kafka(
    rounds: Rounds = 3,
    seconds: Seconds = 2.0,
    only: Only = None,
    payload: Payload = 200,
    bootstrap: Bootstrap = None,
    json_file: Json = None,
) -> None:
    """Streams on Kafka: kafka_1, kafka_12 (partitions), kafka_ack, kafka_sse_1, kafka_sse_12, kafka_spool.

    Beside it plain aiokafka and the embedded log. From a checked-out tree it starts a broker of its own.
    """
    _require_numpy()
    from devices.bench.kafka import KEYS, bench_kafka

    keys = _choose(only, KEYS, KEYS)
    _run(
        _plan(rounds, seconds, "headrace", payload),
        json_file,
        lambda plan, report: bench_kafka(plan, report, keys, bootstrap),
    )


@app.command()
def replay(
    rounds: Rounds = 1,
    seconds: Seconds = 2.0,
    only: Only = None,
    payload: Payload = 64,
    records: Annotated[int, typer.Option(min=1000, help="Records of the log.")] = HISTORY_RECORDS,
    json_file: Json = None,
) -> None:
    """A log of a day: export_ndjson, export_csv, export_parquet, export_ack, histogram, series, topics_at, replay_q0,
    replay_q1 ($replay to a subscriber)."""
    _require_numpy()
    from devices.bench.replay import KEYS, bench_replay

    keys = _choose(only, KEYS, KEYS)
    _run(
        _plan(rounds, seconds, "headrace", payload),
        json_file,
        lambda plan, report: bench_replay(plan, report, records, keys),
    )


@app.command(name="all")
def all_scenarios(
    rounds: Rounds = 3,
    seconds: Seconds = 2.0,
    peers: Peers = None,
    records: Annotated[int, typer.Option(min=1000, help="Records of the long logs.")] = HISTORY_RECORDS,
    bootstrap: Bootstrap = None,
    json_file: Json = None,
) -> None:
    """Everything that has a goal: three quarters of an hour with the defaults, and 5 GB of disk for a while.

    Without --bootstrap, and where no Kafka can be started, streams on Kafka are left out.
    """
    _require_numpy()
    from devices.bench.history import bench_history
    from devices.bench.idle import bench_idle
    from devices.bench.kafka import PAYLOAD_BYTES, bench_kafka
    from devices.bench.kafka_broker import has_scripts
    from devices.bench.replay import bench_replay
    from devices.bench.sse import bench_sse
    from devices.bench.stored import bench_stored

    def bench(plan: Plan, report: Report) -> None:
        _bench_mqtt(plan, report)
        bench_stored(plan, report)
        bench_sse(plan, report)
        bench_idle(plan, report)
        bench_history(plan, report, records)
        if bootstrap is not None or has_scripts():
            bench_kafka(replace(plan, payload_bytes=PAYLOAD_BYTES), report, bootstrap=bootstrap)
        else:
            plan.report("Kafka: not measured, for there is none (--bootstrap HOST:PORT)")
        bench_replay(replace(plan, rounds=1), report, records)

    _run(_plan(rounds, seconds, peers, 64), json_file, bench, is_complete=True)


def _require_numpy() -> None:
    if importlib.util.find_spec("numpy") is None:
        typer.echo("headrace bench needs numpy: pip install 'headrace[bench]'", err=True)
        raise typer.Exit(EXIT_USAGE)
    # numpy's algebra library starts threads that spin for a while, on the cores that are to be measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _choose(only: str | None, known: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    if only is None:
        return default
    keys = tuple(key.strip() for key in only.split(","))
    for key in keys:
        if key not in known:
            raise typer.BadParameter(f"no scenario is called {key!r}; known: {', '.join(known)}", param_hint="--only")
    return keys


def _plan(rounds: int, seconds: float, peers: str | None, payload_bytes: int) -> Plan:
    from rich.console import Console

    from devices.bench.peers import find_peers
    from devices.bench.rounds import Plan
    from devices.bench.wire import PeerFailed

    console = Console(stderr=True, highlight=False)
    try:
        versions = find_peers(peers.split(",") if peers else None)
    except PeerFailed as error:
        raise typer.BadParameter(str(error), param_hint="--peers") from error
    return Plan(
        rounds=rounds,
        seconds=seconds,
        peers=tuple(versions),
        payload_bytes=payload_bytes,
        report=lambda line: console.print(line, markup=False, style="dim"),
    )


def _run(
    plan: Plan, json_file: Path | None, bench: Callable[[Plan, Report], None], *, is_complete: bool = False
) -> None:
    """Measure, print, write; exit 1 when a check failed or a result is not valid."""
    import json

    from rich.console import Console

    from broker.compiled import how_it_runs
    from devices.bench.peers import data_root, file_system, find_peers
    from devices.bench.report import print_report
    from devices.bench.results import Report

    report = Report()
    report.facts["servers"] = ", ".join(f"{name} {version}" for name, version in find_peers(list(plan.peers)).items())
    report.facts["machine"] = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"load average {os.getloadavg()[0]:.1f}, data on {file_system(data_root())}"
    )
    report.facts["modules"] = f"Headrace is {how_it_runs()}"
    report.facts["runs"] = f"{plan.rounds} rounds of {plan.seconds:g} s, {plan.payload_bytes}-byte payloads, loopback"
    started = time.monotonic()
    bench(plan, report)
    report.facts["took"] = f"{time.monotonic() - started:.0f} s"
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    print_report(report, console, is_complete=is_complete)
    if json_file is not None:
        json_file.write_text(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n")
    if report.problems():
        raise typer.Exit(EXIT_FAILED)


if __name__ == "__main__":
    app()
