"""`embatch clean`: remove what no run can ever need again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from jobs import arguments, console
from pipeline.clean import clean as remove


def clean(
    output: arguments.OutputUri,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Remove temporary files, plan parts and dead letters that nothing names. Never a shard.

    embatch clean vectors/ --dry-run
    """
    removed = remove(output, dry_run=dry_run)
    values = {"output": output, "dry_run": dry_run, "removed": [asdict(stored) for stored in removed]}
    lines = [(stored.key, console.size(stored.size)) for stored in removed]
    word = "would be removed" if dry_run else "removed"
    console.result(values, lines, as_json=as_json, title=f"{output}: {len(removed)} objects {word}")
