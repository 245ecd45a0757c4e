"""`embatch jobs`: what runs and ran on a Ray cluster's job server."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from jobs import arguments, console
from jobs.helping import Verb, Verbs

app = typer.Typer(cls=Verbs, help="List, follow or stop the jobs of a Ray cluster.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="As `embatch jobs list` shows it.")]


@app.command("list", cls=Verb)
def list_(address: arguments.Address, as_json: arguments.Json = False) -> None:
    """Show submitted jobs, the latest last."""
    console.own_stdout()
    from jobs.submission.server import JobServer

    found = JobServer(address).jobs()
    if as_json:
        console.result({"jobs": [asdict(job) for job in found]}, [], as_json=True, title="")
        return
    rows = [
        (job.id, job.status, job.started or "", "" if job.exit_code is None else str(job.exit_code)) for job in found
    ]
    console.table(("id", "status", "started", "exit code"), rows)


@app.command(cls=Verb)
def logs(
    address: arguments.Address,
    job_id: JobId,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends; exit with its code.")] = False,
) -> None:
    """Print what a job's driver printed."""
    console.own_stdout()
    from jobs.submission import following
    from jobs.submission.server import JobServer

    server = JobServer(address)
    if not follow:
        console.passed_on(server.log(server.job(job_id).id))
        return
    ended = following.follow(server, server.job(job_id).id, console.passed_on)
    if ended.exit_code:
        raise typer.Exit(ended.exit_code)


@app.command(cls=Verb)
def stop(address: arguments.Address, job_id: JobId) -> None:
    """Stop a job: what it committed stays, and the same `embatch submit` continues it."""
    console.own_stdout()
    from jobs.submission.server import JobServer

    running = JobServer(address).stop(job_id)
    console.note(f"stopping {job_id}" if running else f"{job_id} had ended already")
