"""What people see: messages on stderr, live progress on a terminal, log lines elsewhere, one JSON object on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.exceptions import PipelineError
from pipeline.telemetry import Listener, Progress

LOG_LINE_SECONDS = 10.0

_stderr = Console(stderr=True, highlight=False, soft_wrap=True)
_stdout = Console(highlight=False, soft_wrap=True)


def own_stdout() -> None:
    """Keep stdout for results: whatever else this process or its libraries print goes to stderr.

    Ray prints notices of its workers to stdout, which would break `--json`.
    """
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    _stdout.file = results


def write(text: str) -> None:
    """Print a result as it is."""
    _stdout.file.write(text + "\n")
    _stdout.file.flush()


def wants_json() -> bool:
    """Tell whether stdout is promised to a machine."""
    return "--json" in sys.argv


def error(failure: PipelineError) -> None:
    """Say what failed, where, and what to do."""
    _stderr.print(f"[bold red]error:[/] {escape(str(failure))} [dim](exit {failure.exit_code})[/]")


def warn(message: str) -> None:
    """Say something that does not stop the command."""
    _stderr.print(f"[yellow]warning:[/] {escape(message)}")


def note(message: str) -> None:
    """Say something in passing."""
    _stderr.print(escape(message))


def passed_on(text: str) -> None:
    """Print what another process printed, as it is."""
    sys.stderr.write(text)
    sys.stderr.flush()


def result(values: Mapping[str, Any], lines: Sequence[tuple[str, str]], *, as_json: bool, title: str) -> None:
    """Print the outcome of a command: one JSON object, or a few lines for people."""
    if as_json:
        write(json.dumps(values, ensure_ascii=False))
        return
    _stdout.print(f"[bold]{escape(title)}[/]")
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        _stdout.print(f"  [dim]{name:<{width}}[/]  {escape(value)}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns: the first and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for number, row in enumerate((columns, *rows)):
        first, *middle, last = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in middle), last[0]]
        line = escape("  ".join(cells).rstrip())
        _stdout.print(f"  {line}" if number else f"  [dim]{line}[/]")


def finding(level: str, check: str, message: str, remedy: str) -> None:
    """Print one line of a diagnosis, and below it what to do."""
    colour = {"ok": "green", "warning": "yellow", "error": "bold red"}[level]
    _stdout.print(f"[{colour}]{level:<7}[/]  [dim]{escape(check):<15}[/]  {escape(message)}")
    if remedy:
        _stdout.print(f"{'':<26}[dim]->[/] {escape(remedy)}")


class Redrawn:
    """A block of lines on stderr: drawn again in place on a terminal, else one line each time it says something new."""

    def __init__(self, live: Live | None) -> None:
        self._live, self._last = live, ""

    def show(self, title: str, done: float, lines: Sequence[tuple[str, str]]) -> None:
        """Show where something is; `done` is a share of 1."""
        if self._live is not None:
            grid = Table.grid(padding=(0, 2))
            grid.add_row(Text("done", style="dim"), ProgressBar(total=1.0, completed=done, width=40))
            for name, value in lines:
                grid.add_row(Text(name, style="dim"), Text(value))
            self._live.update(Group(Text(title, style="bold"), grid), refresh=True)
        elif (line := ", ".join(f"{name} {value}" for name, value in lines)) != self._last:
            note(f"{title}: {line}")
            self._last = line


@contextmanager
def redrawing() -> Iterator[Redrawn]:
    """Hold a block of lines; a terminal is cleared of it at the end."""
    if not _stderr.is_terminal:
        yield Redrawn(None)
        return
    with Live(console=_stderr, auto_refresh=False, transient=True) as live:
        yield Redrawn(live)


@contextmanager
def listening() -> Iterator[Listener]:
    """Show a run: bars on a terminal, a line every ten seconds elsewhere."""
    if not _stderr.is_terminal:
        yield LogLines()
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=_stderr) as bar:
        yield LiveBars(bar)


class LiveBars:
    """Rows as a bar, with rates and the time left."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, rate="", left="")

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """Say what there is to do."""
        self._bar.console.print(escape(_plan_line(progress, lost_work_units)))
        self._bar.update(self._task, description="rows", total=progress.rows_total, completed=progress.rows_done)

    def progressed(self, progress: Progress) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            completed=progress.rows_done,
            rate=f"{progress.rows_per_s:,.0f} rows/s, {progress.tokens_per_s:,.0f} tokens/s",
            left=f"{duration(progress.left_seconds)} left",
        )

    def warned(self, message: str) -> None:
        """Print above the bar."""
        self._bar.console.print(f"[yellow]warning:[/] {escape(message)}")


class LogLines:
    """One line now and then, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """Say what there is to do."""
        note(_plan_line(progress, lost_work_units))

    def progressed(self, progress: Progress) -> None:
        """Print a line when the last one is old enough."""
        if time.monotonic() - self._last < LOG_LINE_SECONDS:
            return
        self._last = time.monotonic()
        note(
            f"{progress.units_done:,}/{progress.units_total:,} units, "
            f"{progress.rows_done:,}/{progress.rows_total:,} rows, {progress.rows_dead:,} dead letters, "
            f"{progress.rows_per_s:,.0f} rows/s, {progress.tokens_per_s:,.0f} tokens/s, "
            f"{duration(progress.left_seconds)} left"
        )

    def warned(self, message: str) -> None:
        """Print at once."""
        warn(message)


def _plan_line(progress: Progress, lost_work_units: int) -> str:
    done = f", {progress.units_done:,} units already committed" if progress.units_done else ""
    work = f"{progress.rows_total:,} rows in {progress.units_total:,} units{done}"
    return f"{work}; a kill costs at most {lost_work_units} units of work"


def duration(seconds: float | None) -> str:
    """Write seconds as h:mm:ss; a question mark while unknown."""
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def size(count: float) -> str:
    """Write bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def rounded(count: float) -> str:
    """Write a number that is an estimate: three digits and k, M, G or T."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}".rstrip()
        count /= 1000
    return f"{count:,.0f} T"


def counts(by_code: Mapping[str, int]) -> str:
    """Write dead letters by code."""
    listed = ", ".join(f"{code} {count:,}" for code, count in sorted(by_code.items()))
    return f"{sum(by_code.values()):,}" + (f" ({listed})" if listed else "")
