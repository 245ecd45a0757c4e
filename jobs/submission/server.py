"""The job server of a Ray cluster: its jobs as records, its failures as errors with an exit code."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import stamina

from jobs.schedulers.exit_codes import within_contract
from pipeline.exceptions import ConfigError, InterruptedRunError, PipelineError

T = TypeVar("T")

_LOST = {"JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"}
"""Ways in which a cluster loses a driver, or never gets to start it."""
PATIENCE_SECONDS = 300.0
"""How long a server that answered before may stay silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJob:
    """One job of a server; `status` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    id: str
    status: str
    started: str | None
    ended: str | None
    exit_code: int | None
    message: str

    @property
    def over(self) -> bool:
        """Whether it can change no more."""
        return self.exit_code is not None


class JobServer:
    """A connection to one cluster; the token of a protected one comes from Ray's own environment variables."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            ConfigError: nothing answers there, it refuses the token, or this Python lacks `ray[default]`.
        """
        if not address.startswith(("http://", "https://")):
            raise ConfigError("--address", f"{address!r} is not the URL of a job server, such as http://head:8265")
        if find_spec("requests") is None:
            raise ConfigError("embatch submit", "Ray's client needs more packages: pip install 'embatch[cluster]'")
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        self.address = address
        try:
            self._client = JobSubmissionClient(address)
        except AuthenticationError as error:
            remedy = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
            raise ConfigError("--address", f"{address} asks for another token; {remedy}") from error
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError("--address", f"no job server answers at {address}: {_one_line(error)}") from error
        for name in ("dashboard_sdk", "job.sdk"):
            # uploads and closed streams are no news
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)

    def submit(self, job_id: str, entrypoint: str, folder: Path, metadata: dict[str, str]) -> bool:
        """Start a job in a copy of a folder; False where one of this id exists already.

        Raises:
            PipelineError: the server refuses it.
        """

        def send() -> None:
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(folder)},
                    metadata=metadata,
                )
            except RuntimeError as error:
                if "No available agent" in str(error):  # the cluster is starting
                    raise ConnectionError(_one_line(error)) from error
                raise

        try:
            self._ask(send)
        except RuntimeError as error:
            if job_id in {job.id for job in self.jobs()}:
                return False
            raise PipelineError(f"{self.address} refuses the job: {_one_line(error)}") from error
        return True

    def jobs(self) -> list[ClusterJob]:
        """Return the jobs that were submitted, the latest last."""
        found = [job for job in self._ask(self._client.list_jobs) if job.submission_id]
        return [_record(job) for job in sorted(found, key=lambda job: job.start_time or 0)]

    def job(self, job_id: str) -> ClusterJob:
        """Look one up.

        Raises:
            ConfigError: the server has none of this id.
        """
        try:
            return _record(self._ask(lambda: self._client.get_job_info(job_id)))
        except RuntimeError as error:
            raise ConfigError("ID", f"{self.address} knows no job {job_id!r}; see embatch jobs list") from error

    def stop(self, job_id: str) -> bool:
        """Send the job's driver SIGTERM, later SIGKILL; False where it had ended."""
        job = self.job(job_id)
        return not job.over and self._ask(lambda: self._client.stop_job(job.id))

    def log(self, job_id: str) -> str:
        """Return all that a job's driver has printed."""
        text: str = self._ask(lambda: self._client.get_job_logs(job_id))
        return text

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """Stream what a job's driver prints, from its first line; a stream may end early, without an error."""
        stream: AsyncIterator[str] = self._client.tail_job_logs(job_id)
        return stream

    def _ask(self, question: Callable[[], T]) -> T:
        """Ask again while the server does not answer; what it answers wrongly is a `RuntimeError`.

        Raises:
            InterruptedRunError: it stays silent.
        """
        try:
            for attempt in stamina.retry_context(on=OSError, attempts=None, timeout=PATIENCE_SECONDS, wait_max=15.0):
                with attempt:
                    return question()
        except OSError as error:
            raise InterruptedRunError(f"{self.address} does not answer: {_one_line(error)}") from error
        raise AssertionError  # the loop returns or raises


def _record(job: Any) -> ClusterJob:
    status = str(job.status)
    return ClusterJob(
        id=job.submission_id,
        status=status,
        started=_moment(job.start_time),
        ended=_moment(job.end_time),
        exit_code=exit_code(status, job.driver_exit_code, job.error_type),
        message=job.message or "",
    )


def exit_code(status: str, driver: int | None, error_type: str | None) -> int | None:
    """Map how a job ended to the exit code of the contract; None while it has not ended.

    A driver that was stopped, killed by a signal, or lost with its node can be run again: 8.
    """
    if status in ("PENDING", "RUNNING"):
        return None
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED" or error_type in _LOST:
        return InterruptedRunError.exit_code
    if driver is None:
        return PipelineError.exit_code
    return within_contract(driver)


def _moment(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _one_line(error: BaseException) -> str:
    """Shorten a message of Ray's: a reply of the server has its traceback in it."""
    text = re.sub(r"\\n", "\n", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if len(lines) > 1 and "Traceback" in text else lines[0])[:300] if lines else type(error).__name__
