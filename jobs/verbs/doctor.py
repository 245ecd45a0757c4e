"""`embatch doctor`: whether a job can run here, before it is run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from jobs import arguments, console

if TYPE_CHECKING:
    from pipeline.doctor import Finding


@arguments.of_a_job
def doctor(job: arguments.JobArguments, *, as_json: arguments.Json = False) -> None:
    """Check versions, disks, device, input, output, clock and model. Exits with the code of the first error.

    Without a job only the machine, and --output where it is given, are looked at. The output gets the small object
    `_job/probe` that every run leaves there.

    embatch doctor

    embatch doctor job.yaml

    embatch doctor --output s3://embeddings/docs/ --json
    """
    console.own_stdout()
    whole = job.file or job.set_ or job.input_ or job.model
    config = job.load() if whole else None
    from pipeline.doctor import diagnose  # the libraries it looks at take seconds to import

    findings = []
    for found in diagnose(config, job.output):
        findings.append(found)
        if not as_json:
            console.finding(found.level, found.check, found.message, found.remedy)
    code = next((found.exit_code for found in findings if found.level == "error"), 0)
    if as_json:
        console.write(json.dumps({"findings": [asdict(found) for found in findings], "exit_code": code}))
    else:
        console.note(_verdict(findings))
    raise typer.Exit(code)


def _verdict(findings: list[Finding]) -> str:
    errors = sum(found.level == "error" for found in findings)
    warnings = sum(found.level == "warning" for found in findings)
    return f"{len(findings)} checks, {errors} errors, {warnings} warnings"
