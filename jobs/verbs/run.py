"""`embatch run`: do the job, or what is missing of it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import arguments, console, interrupts, listeners
from pipeline.report import RunReport

_SUMMARY = ("units", "rows_in", "rows_ok", "rows_dead", "tokens", "truncated")
_STAGES = {"read": "reading and tokenizing", "encode": "encoding", "commit": "committing", "start-up": "start-up"}


@arguments.of_a_job
def run(
    job: arguments.JobArguments,
    *,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the output over from a run that is alive.")
    ] = False,
    single_writer: Annotated[
        bool,
        typer.Option(
            "--single-writer", help="Write to a store without create-only writes; you make sure nobody else does."
        ),
    ] = False,
    skip_changed: Annotated[
        bool,
        typer.Option("--skip-changed", help="Set rows of files that changed since the plan aside as dead letters."),
    ] = False,
    fail_on_empty: Annotated[
        bool, typer.Option("--fail-on-empty", help="Exit 10 when the input holds no rows.")
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Embed a corpus, or what is missing of it.

    The same command again continues after any interruption, and does nothing after success.

        embatch run job.yaml --set output.unit_rows=4096

        embatch run --input corpus/ --output vectors/ --model thenlper/gte-small
    """
    console.own_stdout()
    config = job.load()
    from pipeline.job import RunOptions  # reads no corpus and starts no Ray before the keys are known to be right
    from pipeline.job import run as run_job
    from pipeline.stopping import Stop

    started = _process_start()
    stop = Stop(config.limits, started)
    interrupts.on_signals(stop.ask)
    options = RunOptions(
        takeover=takeover,
        single_writer=single_writer,
        skip_changed=skip_changed,
        fail_on_empty=fail_on_empty,
        started=started,
        stop=stop,
    )
    if config.limits.deadline is not None:
        interrupts.after(stop.seconds_left, stop.look)
    with listeners.listening() as listener:
        report = run_job(config, options, listener)
    facts = {"exit_code": 0, **{key: report.totals[key] for key in _SUMMARY}}
    console.result(asdict(report), _lines(report), as_json=as_json, title=_title(report), facts=facts)


def _process_start() -> float:
    """Return when this process began, on its monotonic clock; now, where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except OSError:
        return time.monotonic()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


def _title(report: RunReport) -> str:
    trial = " (trial: input.limit is set)" if report.trial else ""
    if report.run is None:
        return f"{report.name}: already complete, nothing to do{trial}"
    return f"{report.name}: complete{trial}"


def _cost(whole: float | None, now: float | None) -> str:
    return "" if whole is None else f"; cost {console.amount(whole)}, of it {console.amount(now or 0.0)} in this run"


def _truncated(totals: dict[str, Any]) -> str:
    if not totals["truncated"]:
        return "no row"
    lost = f"{totals['chars_lost']:,} of {totals['chars']:,} characters lost"
    return f"{totals['truncated']:,} rows, {lost}, about {totals['tokens_lost_estimate']:,} tokens"


def _rate(now: dict[str, Any]) -> str:
    if not now["steady_rows_per_s"]:
        return "not measured: too few rows"
    return f"{now['steady_rows_per_s']:,.0f} rows/s, {now['steady_tokens_per_s']:,.0f} tokens/s after start-up"


def _bottleneck(now: dict[str, Any]) -> str:
    if now["bottleneck"] is None:
        return "not measured"
    startup = f"first text encoded after {now['startup_seconds']:,.1f} s"
    return f"{_STAGES[now['bottleneck']]} (replicas busy {now['replicas_busy']:.0%}, {startup})"


def _vectors(vectors: dict[str, Any]) -> str:
    stored = f"{vectors['kind']}, {vectors['bytes_a_row']:,} bytes a row"
    if vectors["sample"] is None:
        return stored
    recall = "not measured" if vectors["recall_at_10"] is None else f"{vectors['recall_at_10']:.1%}"
    sample = f"recall@10 {recall} on a sample of {vectors['sample']['rows']:,} rows"
    return f"{stored}; {sample}; {vectors['clipped_share']:.3%} of numbers clipped"


def _scripts(by_script: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in by_script.items()) or "not counted"


def _lines(report: RunReport) -> list[tuple[str, str]]:
    totals, now = report.totals, report.this_run
    lines = [
        ("output", report.output),
        ("rows", f"{totals['rows_in']:,} in = {totals['rows_ok']:,} embedded + {totals['rows_dead']:,} dead letters"),
        ("dead letters", console.counts(totals["dead_by_code"])),
        ("tokens", f"{totals['tokens']:,}" + _cost(totals["cost"], now["cost"])),
        ("truncated", _truncated(totals)),
        ("shards", f"{totals['units']:,}, {console.size(totals['size_bytes'])}"),
        ("encoder", f"{report.encoder['model']}, {report.encoder['dimension']} x {report.encoder['dtype']}"),
        ("vectors", _vectors(report.vectors)),
        ("scripts", _scripts(totals["scripts"])),
        ("content digest", str(report.content_digest)),
    ]
    if now["units"]:
        stages = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in now["stage_seconds"].items())
        lines += [
            ("this run", f"{now['rows']:,} rows in {console.duration(now['seconds'])}"),
            ("rate", _rate(now)),
            ("stages", f"{stages} (summed over {report.replicas} replicas)"),
            ("devices", ", ".join(f"{count} x {name}" for name, count in report.devices.items()) or report.device),
            ("bottleneck", _bottleneck(now)),
        ]
    return lines
