"""The DAG of the documentation in a real Airflow, from `make test-airflow`'s environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import ROOT
from schedulers.kubernetes_api import SUCCEEDED, failed, serve

from jobs.schedulers.exit_codes import ACTIONS

AIRFLOW = ROOT / ".venv-airflow/bin"
EXAMPLE = re.compile(r"^```python airflow\n(.*?)^```", re.MULTILINE | re.DOTALL)
DAYS = ("2026-11-24", "2026-11-25", "2026-11-26")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (AIRFLOW / "airflow").exists(), reason="make test-airflow makes the environment"),
]

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def airflow(tmp_path: Path, daily_job: Path) -> Call:
    """Airflow's command, with a database of its own and the documentation's file, over this test's job."""
    (text,) = EXAMPLE.findall((ROOT / "docs/schedulers.md").read_text())
    text = text.replace("/etc/embatch/docs.yaml", str(daily_job))
    text = text.replace("/opt/embatch/bin/embatch", str(Path(sys.executable).parent / "embatch"))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/docs_daily.py").write_text(text)
    settings = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AIRFLOW / command[0], *command[1:]],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )

    migrated = call("airflow", "db", "migrate")
    assert migrated.returncode == 0, migrated.stdout
    return call


@pytest.mark.ray
def test_a_day_is_embedded_once_however_often_it_is_run(airflow, add_day, tmp_path):
    add_day(DAYS[0])
    first = airflow("airflow", "dags", "test", "docs_daily", DAYS[0])
    assert first.returncode == 0, first.stdout
    assert f"daily-{DAYS[0]}: complete" in first.stdout
    output = tmp_path / "out" / DAYS[0]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}
    second = airflow("airflow", "dags", "test", "docs_daily", DAYS[0])
    assert second.returncode == 0, second.stdout
    assert f"daily-{DAYS[0]}: already complete, nothing to do" in second.stdout
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_three_days_are_embedded_each_to_its_own_output(airflow, add_day, embatch, tmp_path):
    for ds in DAYS:
        add_day(ds)
        done = airflow("airflow", "dags", "test", "docs_daily", ds)
        assert done.returncode == 0, done.stdout
    for ds in DAYS:
        verified = embatch("verify", str(tmp_path / "out" / ds))
        assert verified.returncode == 0, verified.stderr


@pytest.mark.ray
def test_dead_letters_fail_the_day_and_call_the_alert(airflow, tmp_path):
    folder = tmp_path / f"corpus/dt={DAYS[0]}"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("no json\n")
    done = airflow("airflow", "dags", "test", "docs_daily", DAYS[0])
    assert done.returncode == 1
    assert f"dead letters on {DAYS[0]}: embatch ended with exit code 3" in done.stdout


TASKS = """
from jobs.schedulers.airflow_dag import EmbatchOperator
for code in (*{codes}, 137):
    try:
        EmbatchOperator(task_id=f"t{{code}}", command=["sh", "-c", f"echo said; exit {{code}}"], cwd="/").execute({{}})
        print("CODE", code, "success")
    except Exception as error:
        print("CODE", code, type(error).__name__, error)
"""


def test_each_exit_code_ends_a_task_as_it_should(airflow):
    done = airflow("python", "-c", TASKS.format(codes=list(ACTIONS)))
    ended = dict(re.findall(r"^CODE (\d+) (\w+)", done.stdout, re.MULTILINE))
    fails, again = "AirflowFailException", "AirflowException"
    expected = {"0": "success", "3": "DeadLettersError", "10": "AirflowSkipException", "137": again}
    expected |= dict.fromkeys(("1", "2", "4", "5", "6", "11"), fails) | dict.fromkeys(("7", "8", "9"), again)
    assert ended == expected, done.stdout
    assert "CODE 5 AirflowFailException embatch ended with exit code 5: said" in done.stdout


DAG = """
from datetime import UTC, datetime, timedelta
from jobs.schedulers.airflow_dag import daily
begin = datetime(2026, 11, 1, tzinfo=UTC)
dag = daily("d", "/etc/embatch/docs.yaml", start_date=begin, address="http://ray:8265", options=["--detach"])
print("COMMAND", *dag.task_dict["embed"].command)
print("RETRIES", dag.task_dict["embed"].retries)
print("SCHEDULE", type(dag.timetable).__name__, dag.catchup, dag.max_active_runs)
"""


def test_with_an_address_the_job_is_submitted(airflow):
    done = airflow("python", "-c", DAG)
    assert (
        "COMMAND embatch submit /etc/embatch/docs.yaml --address http://ray:8265 --ds {{ ds }} --detach" in done.stdout
    )
    assert "RETRIES 5" in done.stdout
    assert "SCHEDULE CronDataIntervalTimetable False 1" in done.stdout


RAYJOBS = """
from datetime import UTC, datetime
from jobs.schedulers.airflow_dag import daily_rayjob
begin = datetime(2026, 11, 1, tzinfo=UTC)
docs = daily_rayjob("docs_rayjob", "embatch", start_date=begin, namespace="vectors", server="{server}", retries=0)
"""


def test_a_day_is_a_rayjob_and_is_made_up_for_after_it_failed(airflow, tmp_path):
    with serve() as kubernetes:
        kubernetes.accepted.add(None)
        server = f"http://127.0.0.1:{kubernetes.server_address[1]}"
        (tmp_path / "dags/docs_rayjob.py").write_text(RAYJOBS.format(server=server))
        first, second = "embatch-20261124", "embatch-20261124-2"
        kubernetes.course |= {first: [failed(9)], second: [SUCCEEDED]}
        gone = airflow("airflow", "dags", "test", "docs_rayjob", DAYS[0])
        assert "embatch ended with exit code 9: error: what it was" in gone.stdout
        assert second not in kubernetes.jobs
        done = airflow("airflow", "dags", "test", "docs_rayjob", DAYS[0])
        assert done.returncode == 0, done.stdout
        assert set(kubernetes.jobs) == {"embatch", first, second}
