"""`embatch verify`: an audit that trusts nothing the writer said."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from jobs import arguments, console
from pipeline.exceptions import DamagedOutputError


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

    embatch verify vectors/

    embatch verify s3://embeddings/docs/ --no-input --json
    """
    from pipeline.audit import verify as audit  # numpy and pyarrow: not for --help

    report = audit(output, allow_partial=allow_partial, check_input=check_input, input_uri=input_)
    if report.findings:
        raise DamagedOutputError(output, list(report.findings))
    lines = [
        ("units", f"{report.units:,}"),
        ("rows", f"{report.rows:,} embedded"),
        ("dead letters", console.counts(report.dead_by_code)),
        ("content digest", report.content_digest or "none: not complete"),
        ("checked in", console.duration(report.seconds)),
    ]
    console.result(asdict(report), lines, as_json=as_json, title=f"{output}: verified, no findings")
