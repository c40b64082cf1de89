"""Prints a report: a table of rates, a table of other figures, the goals, and what failed."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from devices.bench.goals import Verdict, judge
from devices.bench.results import Cell, Report, Row, Series

MARK = {True: "[green]met[/]", False: "[red]not met[/]", None: "[dim]not measured[/]"}


def rate_text(rate: float | None) -> str:
    """A rate with three digits that count: 1.23 M, 456 k."""
    if rate is None:
        return "–"
    if rate >= 999_500:
        return f"{rate / 1e6:.2f} M"
    return f"{rate / 1e3:.0f} k" if rate >= 9_950 else f"{rate / 1e3:.1f} k"


def range_text(series: Series) -> str:
    """Lowest and highest of the rounds."""
    return "" if len(series.values) < 2 else f"{rate_text(series.low)} – {rate_text(series.high)}"


def print_report(report: Report, console: Console, *, is_complete: bool) -> None:
    """Print everything; `is_complete`: also the goals that were not measured."""
    for name, value in report.facts.items():
        console.print(f"[dim]{escape(name)}:[/] {escape(value)}")
    if report.rows:
        console.print(_rates(report))
    if report.figures:
        console.print(_figures(report))
    verdicts = [verdict for verdict in judge(report) if is_complete or verdict.is_met is not None]
    if verdicts:
        console.print(_goals(verdicts))
    doubts = report.doubts()
    if doubts:
        console.print(f"[yellow]the machine was busy with other things[/]: {len(doubts)} doubtful figures")
    problems = report.problems()
    for problem in problems:
        console.print(f"[red]failed[/] {escape(problem)}")


def _rates(report: Report) -> Table:
    table = Table(
        title="Messages a second (peer: Mosquitto, plain aiokafka or the embedded log; "
        "CPU: of the server for each message; generator, others: cores used)",
        title_justify="left",
    )
    table.add_column("scenario", overflow="fold", max_width=36)
    table.add_column("server", overflow="fold")
    for heading in ("median", "lowest – highest", "× peer", "CPU µs", "generator", "others", "ceiling"):
        table.add_column(heading, justify="right")
    for row in report.rows.values():
        for number, (label, cell) in enumerate(row.cells.items()):
            table.add_row(row.title if number == 0 else "", label, *_cell(row, label, cell))
        table.add_section()
    return table


def _cell(row: Row, label: str, cell: Cell) -> tuple[str, ...]:
    problem = row.problem(label)
    if cell.failure:
        return f"[red]{escape(cell.failure.splitlines()[0])}[/]", "", "", "", "", "", ""
    ratio = row.ratio(label)
    return (
        rate_text(cell.rate.median) + (" [red]invalid[/]" if problem else ""),
        range_text(cell.rate),
        "–" if ratio is None or label == row.baseline else f"{ratio:.2f}",
        "–" if cell.cpu_us.median is None else f"{cell.cpu_us.median:.2f}",
        "–" if cell.load_cores.median is None else f"{cell.load_cores.median:.2f}",
        "–" if cell.other_cores.median is None else f"{cell.other_cores.median:.2f}",
        "–" if cell.is_bare else rate_text(row.ceiling.median),
    )


def _figures(report: Report) -> Table:
    table = Table(title="Other figures: median (lowest – highest)", title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("value", justify="right")
    for figure in report.figures.values():
        table.add_row(figure.title, _value(figure.series, figure.unit, figure.failure))
    return table


def _value(series: Series, unit: str, failure: str | None) -> str:
    if failure:
        return f"[red]{escape(failure.splitlines()[0])}[/]"
    if series.median is None:
        return "–"
    digits = 0 if unit in ("B", "/s") else 2 if unit == "ms" else 1
    text = f"{series.median:,.{digits}f} {unit}"
    if len(series.values) > 1:
        text += f" ({series.low:,.{digits}f} – {series.high:,.{digits}f})"
    return text


def _goals(verdicts: list[Verdict]) -> Table:
    table = Table(title="Goals", title_justify="left")
    for heading in ("goal", "result", ""):
        table.add_column(heading, overflow="fold")
    for verdict in verdicts:
        table.add_row(verdict.goal, verdict.result, MARK[verdict.is_met])
    return table
