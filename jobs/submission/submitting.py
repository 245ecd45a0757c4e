"""Submit a job until it is done: attach to one that runs, and submit again what may be run again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from jobs.schedulers.exit_codes import should_retry
from jobs.submission import bundle
from jobs.submission.following import Write, follow
from jobs.submission.server import ClusterJob, JobServer
from pipeline.config import JobConfig
from pipeline.fingerprint import canonical_json, sha256

PAUSE_SECONDS = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to run; `options` go to the verb, and with `code` the embatch of this machine goes along.

    `environment` is set for the driver and is no part of which job this is.
    """

    job: JobConfig
    verb: str = "run"
    options: tuple[str, ...] = ()
    code: bool = True
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def stem(self) -> str:
        """What the ids of all attempts at this job begin with: the same job, the same stem."""
        values = [self.job.model_dump(mode="json"), self.verb, self.options, self.code]
        return f"embatch-{self.job.name}-{self.verb}-{sha256(canonical_json(values))[:12]}"

    @property
    def entrypoint(self) -> str:
        """The command of the driver."""
        command = bundle.entrypoint(self.verb, code=self.code, options=self.options)
        return " ".join([*(f"{name}={value}" for name, value in self.environment), command])


def start(server: JobServer, request: Request, say: Say) -> str:
    """Return the id of the attempt that runs, or of a new one."""
    earlier = attempts(server.jobs(), request.stem)
    if earlier and not (last := earlier[max(earlier)]).over:
        say(f"{last.id} is {last.status.lower()} already; following it")
        return last.id
    job_id = f"{request.stem}-{max(earlier, default=0) + 1}"
    with bundle.bundle(request.job, code=request.code) as folder:
        fresh = server.submit(job_id, request.entrypoint, folder, {"name": request.job.name, "by": "embatch submit"})
    say(f"submitted {job_id}" if fresh else f"{job_id} was submitted by somebody else meanwhile; following it")
    return job_id


def run(server: JobServer, request: Request, tries: int, write: Write, say: Say) -> ClusterJob:
    """Follow the job, and submit it again, up to `tries` times in all, where the same command continues it.

    A job that somebody stopped is not submitted again. Returns how the last attempt ended.
    """
    for attempt in range(1, tries + 1):
        ended = follow(server, start(server, request, say), write)
        code = ended.exit_code or 0
        if ended.status == "STOPPED" or not should_retry(code) or attempt == tries:
            break
        say(f"{ended.id} ended with exit {code}; submitting it again, attempt {attempt + 1} of {tries}")
        time.sleep(PAUSE_SECONDS)
    return ended


def attempts(jobs: list[ClusterJob], stem: str) -> dict[int, ClusterJob]:
    """Return the jobs of one stem by the number of their attempt."""
    numbered = re.compile(re.escape(stem) + r"-(\d+)")
    return {int(match[1]): job for job in jobs if (match := numbered.fullmatch(job.id))}
