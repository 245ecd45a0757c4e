"""`embatch backfill`: a daily job, for each day of a span.

Each day is an `embatch run` in a process of its own. That costs some seconds of imports a day, and buys that a day's
memory, Ray and crash are its own, and that its exit code is the one of the contract.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

from jobs import arguments, console, interrupts
from jobs.schedulers.exit_codes import should_retry
from pipeline.exceptions import ConfigError, InterruptedRunError, SourceMissingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """How a day ended. `exit_code` is None where it was not tried; `rows` are those of its whole output."""

    ds: str
    exit_code: int | None = None
    rows: int | None = None
    rows_dead: int | None = None
    outcome: str = "not tried"
    error: str | None = None


def backfill(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job file with {ds} in its output.")],
    from_: Annotated[str, typer.Option("--from", metavar="DAY", help="The first day, as 2026-11-01.")],
    to: Annotated[str, typer.Option("--to", metavar="DAY", help="The last day, which is included.")],
    set_: arguments.Set = None,
    *,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a day that failed with a code not worth a retry.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Take a day without any input file for done.")
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Run a daily job for each day from the first to the last, in order. Days that are complete take seconds.

    Exits with the code worth a retry (7, 8, 9) that ended it, else with that of the first day that failed, else 0.

        embatch backfill job.yaml --from 2026-11-01 --to 2026-11-24

        embatch backfill job.yaml --from 2026-11-01 --to 2026-11-24 --keep-going --skip-missing --json
    """
    console.own_stdout()
    span = _span(arguments.day("--from", from_), arguments.day("--to", to))
    _refuse_shared_output(job, set_, span)
    runs = _Runs([sys.executable, "-m", "jobs.cli", "run", str(job), *_repeated("--set", set_), "--json"])
    interrupts.on_signals(runs.stop)
    done: list[Day] = []
    for number, ds in enumerate(span, start=1):
        console.note(f"{ds}: day {number} of {len(span)}")
        done.append(runs.run(ds, skip_missing=skip_missing))
        code = done[-1].exit_code
        if runs.stopped or (code and (should_retry(code) or not keep_going)):
            break
    _show(job, [*done, *(Day(ds=ds) for ds in span[len(done) :])], as_json=as_json)
    raise typer.Exit(_exit_code([day.exit_code or 0 for day in done], finished=len(done) == len(span)))


class _Runs:
    """Runs a day after the other, and hands a signal on to the run that is under way."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def stop(self, _cause: InterruptedRunError) -> None:
        self.stopped = True
        if self._child is not None:
            self._child.terminate()

    def run(self, ds: str, *, skip_missing: bool) -> Day:
        with TemporaryFile("w+", encoding="utf-8") as results:
            # in a group of its own: Ctrl-C would reach it twice, and the second signal ends a run at once
            command = [*self._command, "--ds", ds]
            with subprocess.Popen(command, stdout=results, process_group=0) as self._child:  # noqa: S603 - embatch
                if self.stopped:  # in the moment before there was a child
                    self._child.terminate()
                code = self._child.wait()
            self._child = None
            results.seek(0)
            return _day(ds, code, results.read(), skip_missing=skip_missing)


def _day(ds: str, code: int, printed: str, *, skip_missing: bool) -> Day:
    """Read a day's outcome from the one JSON object that its run printed, unless it was killed."""
    if code < 0:
        return Day(ds=ds, exit_code=InterruptedRunError.exit_code, outcome=f"killed by signal {-code}")
    values: dict[str, Any] = json.loads(printed)
    if code == 0:
        rows, dead = values["totals"]["rows_in"], values["totals"]["rows_dead"]
        outcome = "complete" if values["this_run"]["units"] else "complete already"
        return Day(ds=ds, exit_code=0, rows=rows, rows_dead=dead, outcome=outcome)
    if skip_missing and values["kind"] == SourceMissingError.__name__:
        return Day(ds=ds, exit_code=0, outcome="no input")
    return Day(ds=ds, exit_code=code, outcome=values["kind"], error=values["error"])


def _span(first: date, last: date) -> list[str]:
    if first > last:
        raise ConfigError("--from", f"{first} is after --to {last}")
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def _refuse_shared_output(job: Path, overrides: list[str] | None, span: Sequence[str]) -> None:
    """Days that write one output would be refused from the second on; also finds what is wrong with the job itself."""
    first, last = (arguments.JobArguments(file=job, set_=overrides, ds=ds).load() for ds in (span[0], span[-1]))
    if first.output.uri == last.output.uri and len(span) > 1:
        raise ConfigError("output.uri", f"{first.output.uri!r} is the same for all days; put {{ds}} into it")


def _repeated(option: str, values: list[str] | None) -> list[str]:
    return [part for value in values or () for part in (option, value)]


def _exit_code(codes: Sequence[int], *, finished: bool) -> int:
    failed = [code for code in codes if code]
    if not failed:
        return 0 if finished else InterruptedRunError.exit_code
    return failed[-1] if should_retry(failed[-1]) else failed[0]


def _show(job: Path, days: Sequence[Day], *, as_json: bool) -> None:
    ended = sum(day.exit_code == 0 for day in days)
    values = {"job": str(job), "days": [asdict(day) for day in days]}
    console.result(values, [], as_json=as_json, title=f"{job}: {ended} of {len(days)} days are done")
    if not as_json:
        rows = [(day.ds, _shown(day.exit_code), _shown(day.rows), _shown(day.rows_dead), day.outcome) for day in days]
        console.table(("day", "exit code", "rows", "dead letters", "outcome"), rows)


def _shown(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
