"""A day's RayJob against a real HTTP server that stands for Kubernetes and KubeRay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import date

import pytest
from samples import ROOT
from schedulers.kubernetes_api import ENTRYPOINT, SUCCEEDED, failed, serve

from jobs.schedulers import rayjobs
from jobs.schedulers.kubernetes import Api, ApiError, NoAnswerError
from jobs.schedulers.rayjobs import create, days_rayjob, exit_code, run

OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "embatch-nightly-29404980", "uid": "0b5c"}
DAY = date(2026, 11, 24)
FIRST, SECOND = "embatch-20261124", "embatch-20261124-2"
STOPPED = {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}
SUSPENDED = {"jobDeploymentStatus": "Suspended", "jobStatus": "RUNNING"}


@pytest.fixture
def kubernetes():
    with serve() as server:
        yield server


@pytest.fixture
def api(kubernetes, tmp_path):
    host, port = kubernetes.server_address
    (tmp_path / "token").write_text("right")
    return Api(host=host, port=port, namespace="vectors", token=tmp_path / "token")


@pytest.fixture(autouse=True)
def _own_signal_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_days_rayjob_is_the_template_with_the_day_in_it(api, kubernetes):
    assert create(api, "embatch", DAY, OWNER) == f"created {FIRST}"
    assert kubernetes.jobs[FIRST] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": FIRST,
            "labels": {"app.kubernetes.io/part-of": "embatch", "embatch/ds": "2026-11-24"},
            "ownerReferences": [OWNER],
        },
        "spec": {"entrypoint": ENTRYPOINT.replace("{ds}", "2026-11-24"), "backoffLimit": 2},
    }


def test_a_day_is_created_once(api, kubernetes):
    create(api, "embatch", DAY)
    before = dict(kubernetes.jobs)
    assert create(api, "embatch", DAY) == f"{FIRST} is there already"
    assert kubernetes.jobs == before


def test_a_name_that_kuberay_would_refuse_is_refused(kubernetes):
    template = {**kubernetes.jobs["embatch"], "metadata": {"name": "a" * 39}}
    with pytest.raises(ApiError, match="longer than the 47 characters"):
        days_rayjob(template, DAY)


def test_an_account_without_rights_says_so(api, kubernetes):
    api.token.write_text("wrong")
    with pytest.raises(ApiError, match="cannot read the RayJob 'embatch': 403 forbidden"):
        create(api, "embatch", DAY)
    assert set(kubernetes.jobs) == {"embatch"}


def test_a_missing_template_says_so(api):
    with pytest.raises(ApiError, match="no RayJob 'other' in the namespace 'vectors'"):
        create(api, "other", DAY)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (SUCCEEDED, 0),
        (failed(3), 3),
        (failed(8), 8),
        (failed(-9), 8),
        (failed(137), 8),
        (failed(77), 1),
        (STOPPED, 8),
        (SUSPENDED, 8),
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "the head's node died"}, 8),
        ({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, 8),
    ],
)
def test_the_exit_code_is_the_drivers(status, code):
    assert exit_code(status) == code


def test_a_run_waits_through_faults_and_ends_as_the_driver_did(api, kubernetes, capsys):
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    kubernetes.course[FIRST] = [{}, running, "fault", running, failed(5)]
    assert run(api, "embatch", DAY, look_s=0.01) == 5
    assert kubernetes.jobs[FIRST]["spec"]["backoffLimit"] == 0
    assert capsys.readouterr().out.splitlines() == [
        f"created {FIRST}",
        f"{FIRST}: New",
        f"{FIRST}: Running RUNNING",
        f"{FIRST}: Failed FAILED",
        "error: what it was",
    ]


def test_a_day_that_runs_or_is_done_is_attached_to(api, kubernetes, capsys):
    create(api, "embatch", DAY)
    kubernetes.course[FIRST] = [SUCCEEDED]
    assert run(api, "embatch", DAY, look_s=0.01) == 0
    assert set(kubernetes.jobs) == {"embatch", FIRST}
    assert f"{FIRST} is there already" in capsys.readouterr().out


@pytest.mark.parametrize("ended", [failed(9), STOPPED, SUSPENDED])
def test_a_day_that_failed_or_was_stopped_gets_another_rayjob(api, kubernetes, ended):
    create(api, "embatch", DAY)
    kubernetes.jobs[FIRST]["spec"]["suspend"] = ended is SUSPENDED
    kubernetes.course[FIRST] = [ended]
    kubernetes.course[SECOND] = [SUCCEEDED]
    assert run(api, "embatch", DAY, look_s=0.01) == 0
    assert set(kubernetes.jobs) == {"embatch", FIRST, SECOND}


def test_a_deleted_or_suspended_rayjob_counts_as_interrupted(api, kubernetes):
    api.create(days_rayjob(kubernetes.jobs["embatch"], DAY))
    threading.Timer(0.2, lambda: kubernetes.jobs.pop(FIRST)).start()
    assert run(api, "embatch", DAY, look_s=0.01) == 8
    kubernetes.course[FIRST] = [{}, SUSPENDED]
    threading.Timer(0.2, lambda: kubernetes.jobs[FIRST]["spec"].update(suspend=True)).start()
    assert run(api, "embatch", DAY, look_s=0.01) == 8


def test_it_gives_up_where_kubernetes_stays_away(api, kubernetes, monkeypatch):
    monkeypatch.setattr(rayjobs, "PATIENCE_S", 0.1)
    create(api, "embatch", DAY)
    kubernetes.course[FIRST] = [{}, "fault"]
    with pytest.raises(NoAnswerError, match="503"):
        run(api, "embatch", DAY, look_s=0.01)


def command(kubernetes, *more: str) -> subprocess.Popen[str]:
    """Start the command line as Airflow does, through what stands for `kubectl proxy`, which adds the token."""
    kubernetes.accepted.add(None)
    server = f"http://127.0.0.1:{kubernetes.server_address[1]}"
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jobs.schedulers.rayjobs",
            "run",
            "embatch",
            "--ds",
            str(DAY),
            "--server",
            server,
            *more,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_command_suspends_its_rayjob_when_told_to_stop(kubernetes):
    kubernetes.course[FIRST] = [{"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}]
    running = command(kubernetes, "--namespace", "vectors")
    while "Running" not in running.stdout.readline():
        assert running.poll() is None
    time.sleep(0.1)
    running.terminate()
    assert running.wait(20) == 8
    assert f"{FIRST} is told to stop" in running.stdout.read()
    assert kubernetes.jobs[FIRST]["spec"]["suspend"] is True


def test_the_command_says_what_is_wrong_in_one_line(kubernetes):
    refused = command(kubernetes, "--namespace", "other")
    assert refused.wait(20) == 2
    assert refused.stdout.read() == "rayjobs: cannot read the RayJob 'embatch': 403 forbidden\n"


def test_outside_of_a_pod_a_server_has_to_be_named(monkeypatch, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert rayjobs.main(["create", "embatch"]) == 2
    assert "give --server and --namespace" in capsys.readouterr().err
