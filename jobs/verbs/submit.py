"""`embatch submit`: run a job on a Ray cluster, and end as it ends."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from jobs import arguments, console


@arguments.of_a_job
def submit(
    job: arguments.JobArguments,
    *,
    address: arguments.Address,
    detach: Annotated[bool, typer.Option("--detach", help="Submit and return; see `embatch jobs`.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run `embatch doctor` there first; submit nothing where it finds an error.")
    ] = False,
    tries: Annotated[int, typer.Option(min=1, help="Attempts in all, after exit 7, 8 and 9.")] = 3,
    image: Annotated[
        bool, typer.Option("--image", help="Use the embatch that the cluster's image has; else this one goes along.")
    ] = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the output over from a run that is alive.")
    ] = False,
    fail_on_empty: Annotated[
        bool, typer.Option("--fail-on-empty", help="Exit 10 when the input holds no rows.")
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Run a job on a Ray cluster: follow its log, and exit with its code.

    The same command again follows the job if it runs, and continues it if it does not. Ctrl-C stops following, not
    the job. A cluster that asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.

    embatch submit job.yaml --address http://head:8265 --set cluster.device=cuda
    """
    console.own_stdout()
    config = job.load()
    from jobs.submission import bundle, submitting  # Ray takes a second to import
    from jobs.submission.server import JobServer

    given = {"--takeover": takeover, "--fail-on-empty": fail_on_empty}
    options = tuple(option for option, wanted in given.items() if wanted)
    environment = ((console.LOG_FORMAT, "json"),) if console.logs_json() else ()
    request = submitting.Request(
        job=bundle.for_cluster(config), options=options, code=not image, environment=environment
    )
    server = JobServer(address)
    examination = replace(request, verb="doctor", options=())
    if check and (found := submitting.run(server, examination, 1, console.passed_on, console.note)).exit_code:
        console.note(f"the job was not submitted: {found.id} found an error")
    elif detach:
        found = server.job(submitting.start(server, request, console.note))
    else:
        found = submitting.run(server, request, tries, console.passed_on, console.note)
    lines = [("status", found.status), ("output", config.output.uri)]
    lines += [("exit code", str(found.exit_code))] if found.over else [("log", f"embatch jobs logs {found.id}")]
    console.result(asdict(found), lines, as_json=as_json, title=found.id)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
