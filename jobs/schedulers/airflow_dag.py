"""Airflow 3 DAGs that embed a day's partition in each run: by `embatch run`, `embatch submit` or a RayJob of KubeRay.

Airflow's environment needs this package without its dependencies; embatch itself runs as a command of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from jobs.schedulers.exit_codes import DEAD_LETTERS, Action, action

Context = Mapping[str, Any]
"""What Airflow tells a callback: `ds`, `exception`, `ti` and more."""


class DeadLettersError(AirflowFailException):  # type: ignore[misc]
    """A day is embedded but not published, as too many of its rows became dead letters."""


class EmbatchOperator(BaseOperator):  # type: ignore[misc]
    """A command of embatch as a task: retried where its exit code says so, failed at once or skipped where not."""

    template_fields: Sequence[str] = ("command",)

    def __init__(self, *, command: Sequence[str], cwd: str | None, **options: Any) -> None:
        super().__init__(**options)
        self.command = command
        self.cwd = cwd
        self._hook: SubprocessHook | None = None

    def execute(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        """Run the command, its output in the task's log."""
        self._hook = SubprocessHook()
        ended = self._hook.run_command(list(self.command), cwd=self.cwd)
        raise_for(ended.exit_code, ended.output)

    def on_kill(self) -> None:
        """Tell embatch alone to stop: a signal to its process group would take Ray away from under it."""
        if self._hook is not None and self._hook.sub_process is not None:
            self._hook.sub_process.terminate()


def raise_for(code: int, said: str) -> None:
    """Raise what makes Airflow do what an exit code asks for; `said` is the last line of the command.

    Raises:
        AirflowException: worth a retry.
        AirflowFailException: not worth one.
        AirflowSkipException: there was nothing to do.
    """
    message = f"embatch ended with exit code {code}: {said}"
    if code == DEAD_LETTERS:
        raise DeadLettersError(message)
    match action(code):
        case Action.RETRY:
            raise AirflowException(message)
        case Action.SKIP:
            raise AirflowSkipException(message)
        case Action.ALERT:
            raise AirflowFailException(message)


def daily(
    dag_id: str,
    job: str,
    *,
    start_date: datetime,
    embatch: Sequence[str] = ("embatch",),
    options: Sequence[str] = (),
    address: str | None = None,
    **schedule_and_more: Any,
) -> DAG:
    """Return the DAG of a daily job, run where Airflow's worker is or submitted to a Ray cluster.

    Args:
        dag_id: its name in Airflow.
        job: path of a job file with `{ds}`; its folder is where the command runs.
        start_date: the first day, with its time zone.
        embatch: the command, as Airflow's worker finds it.
        options: more options of the verb, such as `--set limits.deadline=6h`.
        address: a Ray cluster's job server: the command is then `embatch submit`, else `embatch run`.
        schedule_and_more: see `each_day`.
    """
    verb = ("run", job) if address is None else ("submit", job, "--address", address)
    command = [*embatch, *verb, "--ds", "{{ ds }}", *options]
    return each_day(dag_id, command, str(Path(job).parent), start_date=start_date, **schedule_and_more)


def daily_rayjob(
    dag_id: str,
    template: str,
    *,
    start_date: datetime,
    namespace: str | None = None,
    server: str | None = None,
    **schedule_and_more: Any,
) -> DAG:
    """Return the DAG of a daily job that KubeRay runs: each day a RayJob, waited for, with a cluster of its own.

    Args:
        dag_id: its name in Airflow.
        template: a suspended RayJob with `{ds}` in its entrypoint, such as `infra/kuberay/overlays/cron` applies.
        start_date: the first day, with its time zone.
        namespace: where the RayJobs are; that of Airflow's worker unless said.
        server: of `kubectl proxy`, where Airflow's worker is no pod of the cluster.
        schedule_and_more: see `each_day`.
    """
    where = [*(("--namespace", namespace) if namespace else ()), *(("--server", server) if server else ())]
    command = [sys.executable, "-m", "jobs.schedulers.rayjobs", "run", template, "--ds", "{{ ds }}", *where]
    return each_day(dag_id, command, None, start_date=start_date, **schedule_and_more)


def each_day(
    dag_id: str,
    command: Sequence[str],
    cwd: str | None,
    *,
    start_date: datetime,
    schedule: str = "0 3 * * *",
    retries: int = 5,
    on_dead_letters: Callable[[Context], None] | None = None,
    **dag_options: Any,
) -> DAG:
    """Return a DAG that runs a command of embatch for each day.

    The day is the logical date. With Airflow's data intervals the run of a schedule such as `0 3 * * *` begins when its
    interval is over, so the day that is embedded is the one before; a run for any day does just that day.

    Args:
        dag_id: its name in Airflow.
        command: with `{{ ds }}` for the day.
        cwd: the folder it runs in; Airflow's own temporary one when None.
        start_date: the first day, with its time zone.
        schedule: cron expression, in UTC.
        retries: how often a code worth a retry is tried again, after 5, 10, 20 … minutes, an hour at the most.
        on_dead_letters: called when a day ended with exit 3.
        dag_options: of `DAG`; one run at a time, and no runs for days that went by, unless said otherwise.
    """
    with DAG(
        dag_id=dag_id,
        # not "@daily", which is a trigger without an interval in Airflow 3: its day would be the one that begins
        schedule=CronDataIntervalTimetable(schedule, timezone="UTC"),
        start_date=start_date,
        **{"catchup": False, "max_active_runs": 1, **dag_options},
    ) as dag:
        EmbatchOperator(
            task_id="embed",
            command=command,
            cwd=cwd,
            retries=retries,
            retry_delay=timedelta(minutes=5),
            retry_exponential_backoff=True,
            max_retry_delay=timedelta(hours=1),
            on_failure_callback=None if on_dead_letters is None else _alert(on_dead_letters),
        )
    return dag


def _alert(tell: Callable[[Context], None]) -> Callable[[Context], None]:
    def on_failure(context: Context) -> None:
        if isinstance(context.get("exception"), DeadLettersError):
            tell(context)

    return on_failure
