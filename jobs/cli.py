"""The command `embatch`: parse, call the library, turn errors into messages and exit codes."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from contextlib import suppress
from enum import StrEnum
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from jobs import console, interrupts, streams
from jobs.helping import Verb, Verbs
from jobs.verbs import backfill, clean, config, doctor, jobs, plan, run, status, submit, tune, verify
from pipeline import logs
from pipeline.exceptions import ConfigError, InterruptedRunError, PipelineError

EPILOG = (
    "Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 too many dead letters, 4 output belongs to "
    "something else, 5 input missing or changed, 6 model or device, 7 stalled, 8 interrupted, 9 storage, "
    "10 no rows, 11 output damaged. Run the same command again after 7, 8 and 9."
)

app = typer.Typer(
    name="embatch",
    cls=Verbs,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class LogFormat(StrEnum):
    """How what goes to stderr is written."""

    TEXT = "text"
    JSON = "json"


def _show_version(asked: bool) -> None:
    if asked:
        console.write(version("embatch"))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar=console.LOG_FORMAT, help="json: one JSON object a line on stderr, with the run's id."),
    ] = LogFormat.TEXT,
) -> None:
    """Turn sharded text corpora into sharded embeddings; never lose, repeat or mislabel a row."""
    if log_format is LogFormat.JSON:
        console.log_as_json()


app.command("run", cls=Verb)(run.run)
app.command("backfill", cls=Verb)(backfill.backfill)
app.command("doctor", cls=Verb)(doctor.doctor)
app.command("plan", cls=Verb)(plan.plan)
app.command("tune", cls=Verb)(tune.tune)
app.command("submit", cls=Verb)(submit.submit)
app.command("status", cls=Verb)(status.status)
app.command("verify", cls=Verb)(verify.verify)
app.command("clean", cls=Verb)(clean.clean)
app.add_typer(jobs.app, name="jobs")
app.add_typer(config.app, name="config")


def main() -> NoReturn:
    """Run the command and end this process with the code of the contract; what its work left running ends with it."""
    code = _run()
    with suppress(Exception):
        atexit._run_exitfuncs()  # noqa: SLF001 - what libraries asked for: to end their processes and remove their files
    console.flush()
    # Python would go on to take itself apart beside threads of Ray's and Arrow's, which then end some processes by a
    # signal, after all is done and said
    os._exit(code)


def _run() -> int:
    streams.secure()
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logs.explain_retries()
    interrupts.on_signals(interrupts.end)
    try:
        code = app(prog_name="embatch", standalone_mode=False) or 0  # what `typer.Exit` was raised with
    except typer.TyperException as error:
        reason = error.format_message().rstrip(".")  # none where the help was shown in place of it
        verb = getattr(getattr(error, "ctx", None), "command_path", "embatch")
        code = _fail(ConfigError("command line", f"{reason}; see {verb} --help")) if reason else ConfigError.exit_code
    except typer.Abort:
        code = _fail(InterruptedRunError("interrupted"))
    except PipelineError as error:
        code = _fail(error)
    except Exception as error:
        internal = PipelineError(f"internal error: {error!r}; please report it with its traceback")
        code = _fail(internal, traceback=True)
    return code


def _fail(error: PipelineError, *, traceback: bool = False) -> int:
    if console.wants_json():
        failure = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
        with suppress(PipelineError):  # what failed first is the one to tell
            console.write(json.dumps(failure, ensure_ascii=False))
    console.error(error, traceback=traceback)
    return error.exit_code


if __name__ == "__main__":
    main()
