"""`embatch verify`: an audit that trusts nothing the writer said."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import arguments, console
from pipeline.exceptions import DamagedOutputError

if TYPE_CHECKING:
    from pipeline.audit import SeriesReport, VerifyReport


def verify(
    output: arguments.OutputUri,
    *,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Audit what is committed of an incomplete output.")
    ] = False,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="URI", help="Where the input is now, if it moved.")
    ] = None,
    check_input: Annotated[
        bool, typer.Option("--check-input/--no-input", help="Compare every row with the source files.")
    ] = True,
    as_json: arguments.Json = False,
) -> None:
    """Check plan, shards and manifest against each other and against the input. Exit 11 on any finding.

    Of a series, all its outputs, and that no file is in two of them.

    embatch verify vectors/

    embatch verify s3://embeddings/docs/ --no-input --json
    """
    from pipeline import audit  # numpy and pyarrow: not for --help

    series = audit.verify_series(output, allow_partial=allow_partial, check_input=check_input, input_uri=input_)
    if series.findings:
        raise DamagedOutputError(output, list(series.findings))
    if series.outputs:
        _show_series(output, series, as_json=as_json)
        return
    report = audit.verify(output, allow_partial=allow_partial, check_input=check_input, input_uri=input_)
    if report.findings:
        raise DamagedOutputError(output, list(report.findings))
    lines = [
        ("units", f"{report.units:,}"),
        *_rows(report.rows, report.dead_by_code),
        ("content digest", report.content_digest or "none: not complete"),
        ("checked in", console.duration(report.seconds)),
    ]
    console.result(asdict(report), lines, as_json=as_json, title=f"{output}: verified, no findings")


def _show_series(uri: str, found: SeriesReport, *, as_json: bool) -> None:
    reports: list[VerifyReport] = list(found.outputs.values())
    dead = sum((Counter(report.dead_by_code) for report in reports), Counter())
    lines = [
        ("outputs", f"{len(reports):,}; no file is in two of them"),
        *_rows(sum(report.rows for report in reports), dead),
        ("checked in", console.duration(sum(report.seconds for report in reports))),
    ]
    console.result(asdict(found), lines, as_json=as_json, title=f"{uri}: a series, verified, no findings")
    if not as_json:
        rows = [
            (
                name,
                f"{report.rows:,}",
                f"{sum(report.dead_by_code.values()):,}",
                report.content_digest or "not complete",
            )
            for name, report in found.outputs.items()
        ]
        console.table(("output", "rows", "dead letters", "content digest"), rows)


def _rows(rows: int, dead_by_code: dict[str, int]) -> list[tuple[str, str]]:
    return [("rows", f"{rows:,} embedded"), ("dead letters", console.counts(dead_by_code))]
