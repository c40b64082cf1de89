"""What a bench run found, as values: series of rounds, cells, rows, single figures; with medians, ratios and validity.

A rate above two thirds of the generator's own ceiling says more about the generator than about the server, so it does
not count. Nothing here measures or prints.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from devices.bench.load import LoadResult

CEILING_SHARE_MAX = 2 / 3
OTHER_CORES_MAX = 0.15
LATE_SUFFIX = "_late_p99_ms"
LATE_MS_MAX = 1.0
BASELINE = "mosquitto"
PLAIN = "plain aiokafka"
SUBJECT = "headrace"


@dataclass
class Series:
    """One figure over the rounds."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def low(self) -> float | None:
        return min(self.values, default=None)

    @property
    def high(self) -> float | None:
        return max(self.values, default=None)


@dataclass
class Cell:
    """One server in one scenario."""

    rate: Series = field(default_factory=Series)
    """Messages a second."""
    cpu_us: Series = field(default_factory=Series)
    """CPU time of the server for each of them, µs."""
    load_cores: Series = field(default_factory=Series)
    """How much of a core the generator used."""
    other_cores: Series = field(default_factory=Series)
    """How much of the machine's cores others used meanwhile."""
    failure: str | None = None
    is_bare: bool = False
    """Measured without the generator, whose ceiling says nothing of it."""

    def add(self, result: LoadResult) -> None:
        """One more round."""
        self.rate.values.append(result.rate)
        self.cpu_us.values.append(result.cpu_us)
        self.load_cores.values.append(result.load_cores)
        self.other_cores.values.append(result.other_cores)


@dataclass
class Row:
    """One scenario."""

    key: str
    title: str
    ceiling: Series = field(default_factory=Series)
    """Messages a second through a relay that parses nothing, in the same rounds."""
    cells: dict[str, Cell] = field(default_factory=dict)
    ceiling_failure: str | None = None
    baseline: str = BASELINE
    """The cell that the others are held against."""

    def ratio(self, label: str = SUBJECT, baseline: str | None = None) -> float | None:
        """Median against median; None when one is missing, failed or invalid."""
        baseline = baseline or self.baseline
        if self.problem(label) or self.problem(baseline):
            return None
        rates = [self.cells[name].rate.median if name in self.cells else None for name in (label, baseline)]
        return rates[0] / rates[1] if rates[0] is not None and rates[1] else None

    def ratio_at_least(self, label: str = SUBJECT) -> float | None:
        """As `ratio`, also where the generator was what held `label` up: the server is at least so fast."""
        cell, baseline = self.cells.get(label), self.cells.get(self.baseline)
        if cell is None or cell.failure or baseline is None or self.problem(self.baseline):
            return None
        rate, other = cell.rate.median, baseline.rate.median
        return rate / other if rate is not None and other else None

    def problem(self, label: str) -> str | None:
        """Why the cell's figures do not count; None when they do (or when there is no such cell)."""
        cell = self.cells.get(label)
        if cell is None:
            return None
        if cell.failure:
            return cell.failure
        # Medians of interleaved rounds: a machine that was busy for one of them was busy for both.
        rate, ceiling = cell.rate.median, self.ceiling.median
        if rate is None or cell.is_bare:
            return None
        if ceiling is None:
            return f"no ceiling: {self.ceiling_failure or 'not measured'}"
        if rate > CEILING_SHARE_MAX * ceiling:
            return f"invalid: {rate:,.0f}/s is above two thirds of the generator's ceiling, {ceiling:,.0f}/s"
        return None


@dataclass
class Figure:
    """One measured value that is not a rate."""

    key: str
    title: str
    unit: str
    series: Series = field(default_factory=Series)
    failure: str | None = None


@dataclass
class Report:
    """Everything one command measured."""

    facts: dict[str, str] = field(default_factory=dict)
    """The machine, versions, settings."""
    rows: dict[str, Row] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Failed checks that are neither of a cell nor of a figure."""

    def add_row(self, row: Row) -> Row:
        self.rows[row.key] = row
        return row

    def add_figure(self, key: str, title: str, unit: str) -> Figure:
        """The figure of that key, new or already begun."""
        return self.figures.setdefault(key, Figure(key, title, unit))

    def add_latency(self, name: str, title: str, p50_ms: float, p99_ms: float) -> None:
        """One more round of two figures, `{name}_p50_ms` and `{name}_p99_ms`."""
        self.add_figure(f"{name}_p50_ms", f"{title}, p50", "ms").series.values.append(p50_ms)
        self.add_figure(f"{name}_p99_ms", f"{title}, p99", "ms").series.values.append(p99_ms)

    def median(self, key: str) -> float | None:
        """A figure's median; None when it was not measured or failed."""
        figure = self.figures.get(key)
        return figure.series.median if figure and not figure.failure else None

    def doubts(self) -> list[str]:
        """What makes figures less than certain though nothing failed."""
        found = []
        for row in self.rows.values():
            for label, cell in row.cells.items():
                others = cell.other_cores.high
                if others is not None and others > OTHER_CORES_MAX:
                    found.append(f"{row.title}, {label}: other processes used up to {others:.1f} cores meanwhile")
        for key, figure in self.figures.items():
            late_ms = figure.series.median
            if key.endswith(LATE_SUFFIX) and late_ms is not None and late_ms > LATE_MS_MAX:
                found.append(f"{figure.title}: {late_ms:.1f} ms")
        return found

    def problems(self) -> list[str]:
        """What makes the run fail. A further peer that loses messages is shown but is not our failure."""
        found = list(self.failures)
        for row in self.rows.values():
            for label in row.cells:
                problem = row.problem(label)
                if problem and (label.startswith(SUBJECT) or label == row.baseline):
                    found.append(f"{row.title}, {label}: {problem}")
        found += [f"{figure.title}: {figure.failure}" for figure in self.figures.values() if figure.failure]
        return found

    def to_json(self) -> dict[str, Any]:
        """The whole report for `--json`, medians and ratios included."""
        document = asdict(self)
        for key, row in self.rows.items():
            document["rows"][key]["ceiling_median"] = row.ceiling.median
            for label, cell in row.cells.items():
                document["rows"][key]["cells"][label] |= {
                    "rate_median": cell.rate.median,
                    "cpu_us_median": cell.cpu_us.median,
                    "ratio": row.ratio(label),
                    "problem": row.problem(label),
                }
        for key, figure in self.figures.items():
            document["figures"][key]["median"] = figure.series.median
        document["problems"] = self.problems()
        document["doubts"] = self.doubts()
        return document
