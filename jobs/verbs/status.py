"""`embatch status`: how far an output is, from anywhere that can read it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from jobs import arguments, console
from pipeline.status import OutputStatus, read_series, wait_for_plan
from pipeline.status import status as read_status

WATCH_SECONDS = 5.0


def status(
    output: arguments.OutputUri,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until the run ends.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Show committed of planned, rows, dead letters, rate and owner of an output; of a series, a line each output.

    embatch status s3://embeddings/docs/

    embatch status s3://embeddings/docs/ --watch
    """
    if (series := read_series(output)) and not watch:
        _show_series(output, series, as_json=as_json)
        return
    found = _watched(output) if watch else read_status(output)
    console.result(asdict(found), _lines(found), as_json=as_json, title=f"{output}: {_word(found)}")


def _show_series(uri: str, found: dict[str, OutputStatus | None], *, as_json: bool) -> None:
    done = sum(output is not None and output.complete for output in found.values())
    values = {"series": uri, "outputs": {name: output and asdict(output) for name, output in found.items()}}
    title = f"{uri}: a series of {console.counted(len(found), 'output')}, {done} of them complete"
    console.result(values, [], as_json=as_json, title=title)
    if not as_json:
        console.table(("output", "rows", "dead letters", "state"), [_row(name, found[name]) for name in found])


def _row(name: str, found: OutputStatus | None) -> tuple[str, str, str, str]:
    if found is None:
        return name, "", "", "not planned yet"
    return name, f"{found.rows_done:,}", f"{found.rows_dead:,}", _word(found)


def _watched(output: str) -> OutputStatus:
    """Show an output until it is complete or nobody writes it; return how it is then."""
    wait_for_plan(output, WATCH_SECONDS)
    with console.redrawing() as block:
        while True:
            found = read_status(output)
            if found.complete or not found.owner_alive:
                return found
            seen = (found.rows_done + found.rows_in_flight) / found.rows_planned if found.rows_planned else 1.0
            block.show(f"{output}: {_word(found)}", seen, _lines(found))
            time.sleep(WATCH_SECONDS)


def _word(found: OutputStatus) -> str:
    if found.complete:
        return "complete"
    return "running" if found.owner_alive else "incomplete; run the job again to continue"


def _share(found: OutputStatus) -> float:
    return found.units_committed / found.units_planned if found.units_planned else 1.0


def _lines(found: OutputStatus) -> list[tuple[str, str]]:
    in_flight = f", and {found.rows_in_flight:,} under way" if found.rows_in_flight else ""
    trial = " (trial)" if found.trial else ""
    lines = [
        ("units", f"{found.units_committed:,} of {found.units_planned:,} committed ({_share(found):.1%})"),
        ("rows", f"{found.rows_done:,} of {found.rows_planned:,} committed{in_flight}{trial}"),
        ("dead letters", f"{found.rows_dead:,}"),
        ("rate", f"{found.rows_per_s:,.0f} rows/s, {found.tokens_per_s:,.0f} tokens/s"),
        ("size", console.size(found.size_bytes)),
        ("model", found.model),
        ("owner", (found.owner or "none") + (", alive" if found.owner_alive else "")),
        ("plan id", found.plan_id),
    ]
    if found.sample_units:
        sample = f"being made: {found.sample_units_done:,} of {found.sample_units:,} units of its sample are encoded"
        lines.insert(2, ("calibration", sample))
    if found.left_seconds is not None:
        lines.insert(4, ("left", f"about {console.duration(found.left_seconds)}"))
    return lines + ([("last error", found.last_error)] if found.last_error else [])
