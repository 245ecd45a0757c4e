"""What people see: messages on stderr, as JSON objects where that was asked for, and results on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from traceback import format_exc
from typing import Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs import streams
from pipeline import logs, wording
from pipeline.exceptions import PipelineError

LOG_FORMAT = "EMBATCH_LOG_FORMAT"
"""The environment variable that says how to log; commands that this one starts go by it too."""

logger = logging.getLogger(__name__)
amount, counted, duration = wording.amount, wording.counted, wording.duration
rounded, size = wording.rounded, wording.size
_stderr = Console(stderr=True, highlight=False, soft_wrap=True)
_stdout = Console(highlight=False, soft_wrap=True)


def own_stdout() -> None:
    """Keep stdout for results: whatever else this process or its libraries print goes to stderr.

    Ray prints notices of its workers to stdout, which would break `--json`.
    """
    results = os.fdopen(os.dup(1), "w", encoding="utf-8", errors=streams.UNENCODABLE)
    sys.stdout.flush()
    os.dup2(2, 1)
    _stdout.file = cast("TextIO", streams.Results(results))


def write(text: str) -> None:
    """Print a result as it is."""
    _stdout.file.write(text + "\n")
    _stdout.file.flush()


def flush() -> None:
    """Hand on what was printed, as far as somebody takes it."""
    for stream in (sys.stdout, _stdout.file, sys.stderr):
        with suppress(OSError, ValueError, PipelineError):
            stream.flush()


def wants_json() -> bool:
    """Tell whether stdout is promised to a machine."""
    return "--json" in sys.argv


def log_as_json() -> None:
    """Write all that goes to stderr as log lines from now on, each a JSON object."""
    os.environ[LOG_FORMAT] = "json"
    logs.to_stderr()


def logs_json() -> bool:
    """Tell whether log lines are JSON objects."""
    return logs.installed() is not None


def bind(facts: Mapping[str, str]) -> None:
    """Put these into every JSON log line from now on."""
    if (formatter := logs.installed()) is not None:
        formatter.bind(facts)


def error(failure: PipelineError, *, traceback: bool = False) -> None:
    """Say what failed, where, and what to do; with the traceback of what is being handled where that is asked for."""
    if logs_json():
        facts: dict[str, object] = {"kind": type(failure).__name__, "exit_code": failure.exit_code}
        if (unit := getattr(failure, "unit", None)) is not None:
            facts["unit"] = unit
        logger.error("%s", failure, extra={"facts": facts}, exc_info=traceback)
        return
    if traceback:
        _stderr.file.write(format_exc())
    _stderr.print(f"[bold red]error:[/] {escape(str(failure))} [dim](exit {failure.exit_code})[/]")


def warn(message: str) -> None:
    """Say something that does not stop the command."""
    if logs_json():
        logger.warning("%s", message)
    else:
        _stderr.print(f"[yellow]warning:[/] {escape(message)}")


def note(message: str, **facts: Any) -> None:
    """Say something in passing, with facts that only a JSON line shows."""
    if logs_json():
        logger.info("%s", message, extra={"facts": facts})
    else:
        _stderr.print(escape(message))


def passed_on(text: str) -> None:
    """Print what another process printed, as it is."""
    sys.stderr.write(text)
    sys.stderr.flush()


def result(
    values: Mapping[str, Any],
    lines: Sequence[tuple[str, str]],
    *,
    as_json: bool,
    title: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Print the outcome of a command: one JSON object, or a few lines for people.

    Where logs are JSON, these lines are one of the log instead, with `facts` if there are any: a container's two
    streams end up in one file.
    """
    if as_json:
        write(json.dumps(values, ensure_ascii=False))
        return
    if logs_json():
        note(title, **(facts or {name.replace(" ", "_"): value for name, value in lines}))
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
            bar = Table.grid(padding=(0, 1))
            # in Rich's own colours a bar that goes well is red
            drawn = ProgressBar(total=1.0, completed=done, width=40, complete_style="green", finished_style="green")
            bar.add_row(drawn, Text(f"{done:.1%}", style="bold"))
            grid = Table.grid(padding=(0, 2))
            grid.add_row(Text("done", style="dim"), bar)
            for name, value in lines:
                grid.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
            grid.add_row(Text("looked at", style="dim"), Text(f"{datetime.now().astimezone():%H:%M:%S}"))
            self._live.update(Group(Text(title, style="bold"), grid), refresh=True)
        elif (line := ", ".join(f"{name} {value}" for name, value in lines)) != self._last:
            note(f"{title}: {line}")
            self._last = line


def canvas() -> Console | None:
    """Return stderr where it is a terminal that may be drawn on."""
    return _stderr if _stderr.is_terminal and not logs_json() else None


@contextmanager
def redrawing() -> Iterator[Redrawn]:
    """Hold a block of lines; a terminal is cleared of it at the end."""
    if (terminal := canvas()) is None:
        yield Redrawn(None)
        return
    with Live(console=terminal, auto_refresh=False, transient=True) as live:
        yield Redrawn(live)


def counts(by_code: Mapping[str, int]) -> str:
    """Write dead letters by code."""
    listed = ", ".join(f"{code} {count:,}" for code, count in sorted(by_code.items()))
    return f"{sum(by_code.values()):,}" + (f" ({listed})" if listed else "")
