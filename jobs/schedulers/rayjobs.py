"""A day of a job as a RayJob of KubeRay, made from a suspended RayJob that is its template.

`create` makes it and does not wait, for a CronJob; `run` waits and ends with the exit code of embatch, for Airflow and
other schedulers. The standard library alone, so that any Python runs it.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import FrameType
from typing import Any

from jobs.schedulers.exit_codes import INTERRUPTED, WRONG, within_contract
from jobs.schedulers.kubernetes import Api, ApiError, NoAnswerError, RayJob, pods_api, proxied_api

PATIENCE_S = 600
"""How long Kubernetes may give no answer before `run` gives up; the RayJob goes on."""
MAX_NAME = 47
"""What KubeRay allows, as it appends to a RayJob's name."""
_ENDED = ("Complete", "Failed")
_DRIVER_CODE = re.compile(r"failed with exit code (-?\d+)")
"""In Ray's message about a job, which KubeRay copies; a RayJob has no field for the code."""


def days_rayjob(template: RayJob, day: date, *, attempt: int = 1, owner: dict[str, Any] | None = None) -> RayJob:
    """Return the RayJob of a day: the template's, running, with the day in its name and for `{ds}`.

    With an owner, Kubernetes deletes the RayJob together with the object that is named.

    Raises:
        ApiError: the name is too long for KubeRay.
    """
    name = f"{template['metadata']['name']}-{day:%Y%m%d}" + (f"-{attempt}" if attempt > 1 else "")
    if len(name) > MAX_NAME:
        raise ApiError(
            f"{name!r} is longer than the {MAX_NAME} characters of a RayJob: give the template a shorter name"
        )
    spec = {key: value for key, value in template["spec"].items() if key != "suspend"}
    spec["entrypoint"] = spec["entrypoint"].replace("{ds}", day.isoformat())
    metadata = {
        "name": name,
        "labels": {**template["metadata"].get("labels", {}), "embatch/ds": day.isoformat()},
        "ownerReferences": [owner] if owner else [],
    }
    return {"apiVersion": template["apiVersion"], "kind": template["kind"], "metadata": metadata, "spec": spec}


def create(api: Api, template: str, day: date, owner: dict[str, Any] | None = None) -> str:
    """Create the day's RayJob unless it is there, and say what was done.

    Raises:
        ApiError: the template is not there or the RayJob cannot be created.
        NoAnswerError: Kubernetes does not answer.
    """
    job = days_rayjob(_template(api, template), day, owner=owner)
    created = api.create(job)
    return f"created {job['metadata']['name']}" if created else f"{job['metadata']['name']} is there already"


def run(api: Api, template: str, day: date, *, look_s: float = 10.0) -> int:
    """Have a RayJob embed the day, wait for its end, and return the exit code of embatch.

    A RayJob of the day that runs already is waited for; where the last one failed or was suspended, another is made,
    which goes on where that one ended. SIGTERM and SIGINT suspend it.

    Raises:
        ApiError: the template is not there, or the account may not do this.
        NoAnswerError: Kubernetes has not answered for `PATIENCE_S`; the RayJob goes on.
    """
    name = _begin(api, template, day)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        for job in _watch(api, name, look_s):
            if _over(job):
                print(_last_line(job["status"].get("message", "")), flush=True)
                return exit_code(job["status"])
    except _Stopped:
        api.suspend(name)
        print(f"{name} is told to stop", flush=True)
        return INTERRUPTED
    print(f"{name} was deleted", flush=True)
    return INTERRUPTED


def exit_code(status: dict[str, Any]) -> int:
    """Return the exit code of embatch that an ended RayJob's status tells of.

    A RayJob that ended otherwise than by its driver, such as with its head's node, can be run again: 8.
    """
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    driver = _DRIVER_CODE.search(status.get("message", ""))
    return within_contract(int(driver[1])) if driver else INTERRUPTED


def _begin(api: Api, template: str, day: date) -> str:
    """Return the name of the day's RayJob: the one that runs or succeeded, else a new one."""
    asked = _template(api, template)
    attempt = 1
    while True:
        job = days_rayjob(asked, day, attempt=attempt)
        job["spec"]["backoffLimit"] = 0  # who waits knows the exit codes; KubeRay repeats what cannot help
        name: str = job["metadata"]["name"]
        found = api.get(name)
        if found is None:
            if api.create(job):
                print(f"created {name}", flush=True)
            return name
        if not _over(found) or exit_code(found["status"]) == 0:
            print(f"{name} is there already", flush=True)
            return name
        attempt += 1


def _over(job: RayJob) -> bool:
    deployment = job.get("status", {}).get("jobDeploymentStatus")
    return deployment in _ENDED or (deployment == "Suspended" and job["spec"].get("suspend", False))


def _template(api: Api, name: str) -> RayJob:
    found = api.get(name)
    if found is None:
        raise ApiError(f"there is no RayJob {name!r} in the namespace {api.namespace!r} to take as the template")
    return found


def _watch(api: Api, name: str, look_s: float) -> Iterator[RayJob]:
    """Yield a RayJob as it is now and then, until it is deleted; print what changes."""
    said, answered = "", time.monotonic()
    while True:
        try:
            job = api.get(name)
            answered = time.monotonic()
        except NoAnswerError:
            if time.monotonic() - answered > PATIENCE_S:
                raise
            time.sleep(look_s)
            continue
        if job is None:
            return
        status = job.get("status", {})
        now = f"{name}: {status.get('jobDeploymentStatus') or 'New'} {status.get('jobStatus', '')}".rstrip()
        if now != said:
            print(now, flush=True)
            said = now
        yield job
        time.sleep(look_s)


class _Stopped(Exception):  # noqa: N818 - not an error
    """A signal asked to stop."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "KubeRay gives no reason"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jobs.schedulers.rayjobs", description=__doc__)
    parser.add_argument("verb", choices=["create", "run"])
    parser.add_argument("template", help="name of the suspended RayJob")
    parser.add_argument("--ds", type=date.fromisoformat, help="the day, YYYY-MM-DD; yesterday in UTC unless said")
    parser.add_argument("--namespace", help="where the RayJobs are; the pod's own unless said")
    parser.add_argument("--server", help="of `kubectl proxy`, such as http://127.0.0.1:8001, outside of the cluster")
    parser.add_argument("--owner", metavar="JOB/UID", help="the Job that the RayJob is deleted with; for `create`")
    asked = parser.parse_args(arguments)
    if asked.server and not asked.namespace:
        parser.error("--server needs --namespace")
    return asked


def _owner(job_and_uid: str) -> dict[str, Any]:
    name, _, uid = job_and_uid.partition("/")
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: embatch's own for `run`, 2 where Kubernetes refuses."""
    asked = _parse(arguments)
    day = asked.ds or datetime.now(UTC).date() - timedelta(days=1)
    try:
        api = proxied_api(asked.server, asked.namespace) if asked.server else pods_api(asked.namespace)
        if asked.verb == "run":
            return run(api, asked.template, day)
        print(create(api, asked.template, day, _owner(asked.owner) if asked.owner else None))
    except NoAnswerError as error:
        print(f"rayjobs: {error}", file=sys.stderr)
        return INTERRUPTED
    except ApiError as error:
        print(f"rayjobs: {error}", file=sys.stderr)
        return WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main())
