"""Arguments that several verbs share, and how they become a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

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
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, such as http://head:8265.",
    ),
]
_SHORT = {"input.uri": "--input", "output.uri": "--output", "encoder.model": "--model"}
OutputUri = Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or prefix that a job writes.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArguments:
    """What a command was told of its job."""

    file: JobFile = None
    set_: Set = None
    input_: Input = None
    output: Output = None
    model: Model = None
    ds: Day = None

    def load(self) -> JobConfig:
        """Build the job from the file, `--set`, the three short options and the day.

        Raises:
            ConfigError: nothing was given, or the job is not valid.
        """
        values = dict(zip(_SHORT, (self.input_, self.output, self.model), strict=True))
        missing = [_SHORT[key] for key, value in values.items() if value is None]
        if self.file is None and not self.set_ and missing:
            given = "all three of --input, --output and --model"
            given = given if len(missing) == len(values) else f"also {' and '.join(missing)}"
            raise ConfigError("JOB.yaml", f"give a job file, or {given}")
        short = [f"{key}={_quoted(value)}" for key, value in values.items() if value is not None]
        return load_job(self.file, [*(self.set_ or ()), *short], None if self.ds is None else day("--ds", self.ds))


def of_a_job(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the arguments that make a job before its own; it takes them as one, `JobArguments`, its first.

    Typer makes a command's arguments of a function's signature, and knows no groups of them.
    """
    shared = signature(JobArguments, eval_str=True).parameters
    _, *own = signature(verb, eval_str=True).parameters.values()

    @wraps(verb)
    def told(**given: Any) -> None:
        verb(JobArguments(**{name: given.pop(name) for name in shared}), **given)

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in (*shared.values(), *own)]
    told.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return told


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
