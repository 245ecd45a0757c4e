"""Arguments that several verbs share, and how they become a job."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import JobConfig, load_job
from pipeline.exceptions import ConfigError

JobFile = Annotated[
    Path | None,
    typer.Argument(metavar="JOB.yaml", help="The job file; may be left out with --input, --output and --model."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key of the job; repeatable.")
]
Input = Annotated[str | None, typer.Option("--input", metavar="URI", help="Same as --set input.uri=URI.")]
Output = Annotated[str | None, typer.Option("--output", metavar="URI", help="Same as --set output.uri=URI.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Same as --set encoder.model=NAME.")]
Day = Annotated[
    str | None, typer.Option("--ds", metavar="DAY", help="The day that {ds} in the job stands for, as 2026-11-24.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else is on stderr.")]
OutputUri = Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or prefix that a job writes.")]


def load(
    path: Path | None,
    overrides: list[str] | None,
    uris: tuple[str | None, str | None],
    model: str | None,
    ds: str | None = None,
) -> JobConfig:
    """Build the job from a file, `--set`, the three short options and the day; `uris` are input and output.

    Raises:
        ConfigError: nothing was given, or the job is not valid.
    """
    if path is None and not overrides and None in (*uris, model):
        raise ConfigError("JOB.yaml", "give a job file, or all three of --input, --output and --model")
    values = {"input.uri": uris[0], "output.uri": uris[1], "encoder.model": model}
    short = [f"{key}={_quoted(value)}" for key, value in values.items() if value is not None]
    return load_job(path, [*(overrides or ()), *short], None if ds is None else day("--ds", ds))


def day(option: str, text: str) -> date:
    """Read a day in the one form that sorts.

    Raises:
        ConfigError: it is written in another form, or there is no such day.
    """
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(option, f"{text!r} is not a day; write it as 2026-11-24") from None
    if found.isoformat() != text:  # 20261124 and 2026-W48-2 are ISO too
        raise ConfigError(option, f"write {text!r} as {found}")
    return found


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
