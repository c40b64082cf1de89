"""How a scenario is measured: rounds of fresh servers, interleaved A B A B, each round with the generator's ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from devices.bench.checks import CheckFailed
from devices.bench.load import LoadResult
from devices.bench.peers import HEADRACE, PEERS, Peer, Server, running
from devices.bench.results import Cell, Row
from devices.bench.wire import PeerFailed


@dataclass(frozen=True)
class Plan:
    """How long and against whom."""

    rounds: int = 3
    seconds: float = 2.0
    warm_up_s: float = 0.5
    ceiling_s: float = 1.0
    peers: Sequence[str] = (HEADRACE,)
    payload_bytes: int = 64
    report: Callable[[str], None] = field(default=print)
    """Takes a line of progress."""


@dataclass(frozen=True)
class Contender:
    """A column: a server with what it is started with."""

    label: str
    peer: Peer
    storage: str = "memory"
    is_websocket: bool = False


def contenders(plan: Plan, storage: str = "memory", *, is_websocket: bool = False) -> list[Contender]:
    """All peers of the plan."""
    return [Contender(name, PEERS[name], storage, is_websocket) for name in plan.peers]


def measure_row(
    row: Row,
    plan: Plan,
    columns: Sequence[Contender],
    run: Callable[[Server], LoadResult],
    run_ceiling: Callable[[], LoadResult],
) -> Row:
    """Fill a row, each run with a freshly started server; see `measure_runs`."""
    runs = {column.label: partial(_run_fresh, column, run) for column in columns}
    return measure_runs(row, plan, runs, run_ceiling)


def _run_fresh(column: Contender, run: Callable[[Server], LoadResult]) -> LoadResult:
    with running(column.peer, storage=column.storage, is_websocket=column.is_websocket) as server:
        return run(server)


def measure_runs(
    row: Row,
    plan: Plan,
    runs: Mapping[str, Callable[[], LoadResult]],
    run_ceiling: Callable[[], LoadResult],
    bare: Sequence[str] = (),
) -> Row:
    """Fill a row, round by round. What fails a check is not run again. `bare`: see `Cell.is_bare`."""
    for number in range(plan.rounds):
        try:
            row.ceiling.values.append(run_ceiling().rate)
        except (CheckFailed, PeerFailed) as error:
            row.ceiling_failure = str(error)
        for label, run in runs.items():
            cell = row.cells.setdefault(label, Cell(is_bare=label in bare))
            if cell.failure:
                continue
            try:
                result = run()
            except (CheckFailed, PeerFailed) as error:
                cell.failure = str(error)
                plan.report(f"{row.title} · {label}: {error}")
                continue
            cell.add(result)
            plan.report(
                f"{row.title} · round {number + 1} · {label}: {result.rate:,.0f}/s, "
                f"{result.cpu_us:.2f} µs CPU, generator {result.load_cores:.2f} cores, others {result.other_cores:.2f}"
            )
    return row
