"""How a scenario is measured: rounds of fresh servers, interleaved A B A B, each round with the generator's ceiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


def contenders(plan: Plan, storage: str = "memory") -> list[Contender]:
    """All peers of the plan."""
    return [Contender(name, PEERS[name], storage) for name in plan.peers]


def measure_row(
    row: Row,
    plan: Plan,
    columns: Sequence[Contender],
    run: Callable[[Server], LoadResult],
    run_ceiling: Callable[[], LoadResult],
) -> Row:
    """Fill a row, round by round. A server that fails a check is not started again."""
    for number in range(plan.rounds):
        try:
            row.ceiling.values.append(run_ceiling().rate)
        except (CheckFailed, PeerFailed) as error:
            row.ceiling_failure = str(error)
        for column in columns:
            cell = row.cells.setdefault(column.label, Cell())
            if cell.failure:
                continue
            try:
                with running(column.peer, storage=column.storage) as server:
                    result = run(server)
            except (CheckFailed, PeerFailed) as error:
                cell.failure = str(error)
                plan.report(f"{row.title} · {column.label}: {error}")
                continue
            cell.add(result)
            plan.report(
                f"{row.title} · round {number + 1} · {column.label}: {result.rate:,.0f}/s, "
                f"{result.cpu_us:.2f} µs CPU, generator {result.load_cores:.2f} cores, others {result.other_cores:.2f}"
            )
    return row
