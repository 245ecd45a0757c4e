"""`embatch config`: the job file's schema, and a job as embatch reads it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import yaml

from jobs import arguments, console
from jobs.helping import Verb, Verbs
from pipeline.config import JobConfig

app = typer.Typer(
    cls=Verbs, help="Show the job file's schema, or a job with its overrides and defaults.", no_args_is_help=True
)


def schema_text() -> str:
    """Return the published JSON Schema of the job file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **JobConfig.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


@app.command(cls=Verb)
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="Same; the schema is JSON already.")] = False,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of the job file, for editors and reviews.

    embatch config schema > job-v1.schema.json
    """
    console.write(schema_text().rstrip())


@app.command(cls=Verb)
@arguments.of_a_job
def show(job: arguments.JobArguments, *, as_json: arguments.Json = False) -> None:
    """Print the job with overrides applied and every default filled in.

    embatch config show job.yaml --set encoder.dtype=float32
    """
    values = job.load().model_dump(mode="json")
    text = json.dumps(values) if as_json else yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    console.write(text.rstrip())
