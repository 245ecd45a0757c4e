"""Who shows a run: a bar on a terminal, a line now and then in a log, or JSON objects for machines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from jobs import console
from pipeline.telemetry import Listener, Progress
from pipeline.wording import counted, duration

LOG_LINE_SECONDS = 10.0
STARTING = "replicas are starting"


@contextmanager
def listening() -> Iterator[Listener]:
    """Show a run: bars on a terminal, a line every ten seconds elsewhere."""
    if (terminal := console.canvas()) is None:
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
    with Bar(*columns, console=terminal) as bar:
        yield LiveBars(bar)


class LiveBars:
    """Rows as a bar, with rates and the time left."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("planning", total=None, rate="", left="")
        self._begun = 0

    def identified(self, facts: Mapping[str, str]) -> None:
        """Show nothing: people see what they started."""

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """Say what there is to do."""
        self._bar.console.print(escape(_plan_line(progress, lost_work_units)))
        self._begun = progress.rows_done
        self._bar.update(self._task, description="rows", total=progress.rows_total, completed=progress.rows_done)
        self._bar.update(self._task, rate=STARTING)

    def progressed(self, progress: Progress) -> None:
        """Move the bar."""
        if progress.rows_done == self._begun:
            self._bar.update(self._task, rate=_beginning(progress))
            return
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
        self._begun = 0

    def identified(self, facts: Mapping[str, str]) -> None:
        """Have JSON lines carry it."""
        console.bind(facts)

    def planned(self, progress: Progress, lost_work_units: int) -> None:
        """Say what there is to do."""
        self._begun = progress.rows_done
        console.note(_plan_line(progress, lost_work_units), **asdict(progress))

    def progressed(self, progress: Progress) -> None:
        """Print a line when the last one is old enough."""
        if time.monotonic() - self._last < LOG_LINE_SECONDS:
            return
        self._last = time.monotonic()
        going = (
            f"{progress.rows_per_s:,.0f} rows/s, {progress.tokens_per_s:,.0f} tokens/s, "
            f"{duration(progress.left_seconds)} left"
        )
        console.note(
            f"{progress.units_done:,}/{progress.units_total:,} units, "
            f"{progress.rows_done:,}/{progress.rows_total:,} rows, {progress.rows_dead:,} dead letters, "
            f"{_beginning(progress) if progress.rows_done == self._begun else going}",
            **asdict(progress),
        )

    def warned(self, message: str) -> None:
        """Print at once."""
        console.warn(message)


def _beginning(progress: Progress) -> str:
    """Say what goes on before the first row of this run is encoded."""
    if not progress.sample_units:
        return STARTING
    return f"calibrating by a sample, {progress.sample_units_done} of {progress.sample_units} units"


def _plan_line(progress: Progress, lost_work_units: int) -> str:
    done = f", {counted(progress.units_done, 'unit')} already committed" if progress.units_done else ""
    work = f"{counted(progress.rows_total, 'row')} in {counted(progress.units_total, 'unit')}{done}"
    lost = min(lost_work_units, progress.units_total - progress.units_done)
    return f"{work}; a kill costs at most {counted(lost, 'unit')} of work"
