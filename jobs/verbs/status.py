"""`embatch status`: how far an output is, from anywhere that can read it."""

from __future__ import annotations

from dataclasses import asdict

from jobs import arguments, console
from pipeline.status import OutputStatus
from pipeline.status import status as read_status


def status(output: arguments.OutputUri, as_json: arguments.Json = False) -> None:
    """Show committed of planned, rows, dead letters, rate and owner of an output.

    embatch status s3://embeddings/docs/
    """
    found = read_status(output)
    console.result(asdict(found), _lines(found), as_json=as_json, title=f"{output}: {_word(found)}")


def _word(found: OutputStatus) -> str:
    if found.complete:
        return "complete"
    return "running" if found.owner_alive else "incomplete; run the job again to continue"


def _lines(found: OutputStatus) -> list[tuple[str, str]]:
    share = found.units_committed / found.units_planned if found.units_planned else 1.0
    lines = [
        ("units", f"{found.units_committed:,} of {found.units_planned:,} committed ({share:.1%})"),
        ("rows", f"{found.rows_done:,} of {found.rows_planned:,}" + (" (trial)" if found.trial else "")),
        ("dead letters", f"{found.rows_dead:,}"),
        ("rate", f"{found.rows_per_s:,.0f} rows/s"),
        ("size", console.size(found.size_bytes)),
        ("model", found.model),
        ("owner", (found.owner or "none") + (", alive" if found.owner_alive else "")),
        ("plan id", found.plan_id),
    ]
    return lines + ([("last error", found.last_error)] if found.last_error else [])
