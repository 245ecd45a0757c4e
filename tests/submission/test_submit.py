"""Jobs on a real, token-protected cluster of separate raylets: started, followed, stopped, and ended as they end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from samples import ROOT
from submission.cutting_proxy import CuttingProxy

from jobs.submission import following, submitting
from jobs.submission.bundle import for_cluster
from jobs.submission.server import JobServer, exit_code
from pipeline.config import load_job
from pipeline.exceptions import ConfigError

pytestmark = pytest.mark.ray

SLOW = "encoder.model=hashing:16?delay_ms_per_1000_rows=60000"
"""A second and a half a unit of 25 rows."""


@pytest.fixture
def server(nodes, monkeypatch):
    from ray._private.authentication_test_utils import reset_auth_token_state

    for name, value in nodes.environment().items():
        monkeypatch.setenv(name, value)
    reset_auth_token_state()  # Ray reads them once a process, and other tests were first
    yield JobServer(nodes.address)
    monkeypatch.undo()
    reset_auth_token_state()


def rows_embedded(job_file) -> int:
    report = json.loads((job_file.parent / "out/_job/report.json").read_text())
    assert report["complete"]
    return report["totals"]["rows_ok"]


def test_a_job_runs_there_and_its_log_and_code_come_back(on_cluster, job_file):
    done = on_cluster("submit", str(job_file), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "SUCCEEDED"
    assert result["id"].endswith("-1")
    assert done.stderr.count("300 in = 300 embedded + 0 dead letters") == 1
    assert rows_embedded(job_file) == 300

    again = on_cluster("submit", str(job_file), "--json")
    assert json.loads(again.stdout)["id"].endswith("-2")
    assert "already complete, nothing to do" in again.stderr


def test_the_code_of_the_driver_is_the_code_of_the_command(on_cluster, job_file):
    done = on_cluster("submit", str(job_file), "--set", f"input.uri={job_file.parent}/nowhere", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["exit_code"] == 5
    assert done.stderr.count("submitted ") == 1, "what cannot succeed is not tried again"


@pytest.mark.slow  # a run on two more nodes
def test_replicas_run_on_nodes_with_the_labels_and_the_report_names_their_device(on_cluster, job_file):
    arguments = ("submit", str(job_file), "--set", "cluster.labels={market: spot}", "--json")
    done = on_cluster(*arguments, EMBATCH_LOG_FORMAT="json")
    assert done.returncode == 0, done.stderr
    report = json.loads((job_file.parent / "out/_job/report.json").read_text())
    assert list(report["devices"].values()) == [1]
    assert report["hosts"] == {socket.gethostname(): 1}
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]  # others are Ray's
    driver = [line for line in lines if line.get("run_id") == report["run_id"]]
    assert driver[-1]["rows_ok"] == 300, "the driver logs in the format of the command that submitted it"


def test_a_check_that_finds_an_error_there_ends_before_the_job(on_cluster, job_file):
    done = on_cluster("submit", str(job_file), "--check", "--set", f"input.uri={job_file.parent}/nowhere", "--json")
    assert done.returncode == 5, done.stderr
    assert "-doctor-" in json.loads(done.stdout)["id"]
    assert "ok       ray" in done.stderr
    assert not (job_file.parent / "out/_job/plan.json").exists()


def test_another_token_is_refused_with_the_variables_to_set(on_cluster, job_file):
    done = on_cluster("submit", str(job_file), RAY_AUTH_TOKEN="0" * 32)
    assert done.returncode == 2
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr


def test_a_running_job_is_followed_not_doubled_and_a_stopped_one_continued(on_cluster, job_file):
    started = on_cluster("submit", str(job_file), "--set", SLOW, "--detach", "--json")
    job_id = json.loads(started.stdout)["id"]
    arguments = ["submit", str(job_file), "--set", SLOW, "--json"]
    while not list((job_file.parent / "out").glob("data/*")):
        time.sleep(0.5)
    listed = json.loads(on_cluster("jobs", "list", "--json").stdout)["jobs"]
    assert [job["status"] for job in listed if job["id"] == job_id] == ["RUNNING"]

    assert on_cluster("jobs", "stop", job_id).returncode == 0
    followed = on_cluster(*arguments)
    if json.loads(followed.stdout)["id"] == job_id:  # it was still stopping
        assert followed.returncode == 8
        assert followed.stderr.count("submitted ") == 0, "a job that somebody stopped is not submitted again"
        followed = on_cluster(*arguments)
    assert followed.returncode == 0, followed.stderr
    assert json.loads(followed.stdout)["id"] == job_id[:-1] + "2"
    assert "already committed" in followed.stderr
    assert rows_embedded(job_file) == 300


def test_a_log_is_whole_and_without_repetitions_through_streams_that_are_cut(nodes, server, job_file):
    config = for_cluster(load_job(job_file, [SLOW.replace("60000", "20000")]))  # longer than some cuts is enough
    request = submitting.Request(job=config)
    proxy = CuttingProxy(nodes.port, seconds=3.0)
    printed: list[str] = []
    job_id = submitting.start(server, request, printed.append)
    printed.clear()
    ended = following.follow(JobServer(proxy.address), job_id, printed.append)
    proxy.close()
    assert ended.exit_code == 0
    assert proxy.cuts > 1
    assert "".join(printed) == server.log(job_id)


def test_a_stream_that_is_not_there_any_more_says_what_to_look_for(server):
    with pytest.raises(ConfigError, match="knows no job 'nope'"):
        server.job("nope")


@pytest.mark.parametrize(
    ("status", "driver", "error_type", "expected"),
    [
        ("PENDING", None, None, None),
        ("RUNNING", None, None, None),
        ("SUCCEEDED", 0, None, 0),
        ("STOPPED", None, None, 8),
        ("FAILED", 4, "JOB_ENTRYPOINT_COMMAND_ERROR", 4),
        ("FAILED", 11, "JOB_ENTRYPOINT_COMMAND_ERROR", 11),
        ("FAILED", 1, "JOB_ENTRYPOINT_COMMAND_ERROR", 1),
        ("FAILED", 127, "JOB_ENTRYPOINT_COMMAND_ERROR", 1),
        ("FAILED", -9, "JOB_ENTRYPOINT_COMMAND_ERROR", 8),
        ("FAILED", 137, "JOB_ENTRYPOINT_COMMAND_ERROR", 8),
        ("FAILED", None, "JOB_SUPERVISOR_ACTOR_DIED", 8),
        ("FAILED", None, "RUNTIME_ENV_SETUP_FAILURE", 1),
    ],
)
def test_how_a_job_ended_maps_to_the_contract(status, driver, error_type, expected):
    assert exit_code(status, driver, error_type) == expected


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("cluster.device=auto", "cluster.device"),
        ("input.uri=corpus/", "input.uri"),
        ("output.uri=../out", "output.uri"),
    ],
)
def test_what_means_something_here_only_is_refused_before_anything_is_sent(job_file, override, key):
    with pytest.raises(ConfigError) as caught:
        for_cluster(load_job(job_file, [override]))
    assert caught.value.key == key


def test_the_id_is_of_the_job_and_of_nothing_else(job_file):
    def stem(*overrides: str, **more: object) -> str:
        return submitting.Request(job=load_job(job_file, overrides), **more).stem

    assert stem() == stem()
    others = {stem("output.unit_rows=7"), stem(options=("--takeover",)), stem(code=False), stem(verb="doctor")}
    assert len(others | {stem()}) == 5


def test_a_bundle_runs_without_an_installed_embatch(job_file, tmp_path):
    """The working directory alone must do, with the version that claims record."""
    from jobs.submission.bundle import bundle

    code = "import jobs.cli, pipeline; from importlib.metadata import metadata; found = metadata('embatch'); "
    code += "print(pipeline.__file__, found['Version'], found['Requires-Python'])"
    with bundle(for_cluster(load_job(job_file)), code=True) as folder:
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
        place, version, python = done.stdout.split()
        assert Path(place).parent.parent == folder
        assert load_job(folder / "job.yaml").name == load_job(job_file).name
        assert not (folder / "jobs/demo/corpus").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (version, python) == (project["version"], project["requires-python"])
