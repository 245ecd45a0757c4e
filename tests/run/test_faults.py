"""Real kills of the real command: nothing is lost, nothing is done twice, and the exit code says what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import encoded, start

pytestmark = pytest.mark.ray


COMPACT = ("--set", "output.vectors=int8")
"""What is made of a sample before the first commit is to survive kills too."""


def shards(output):
    return {path.name: path.read_bytes() for path in Path(output, "data").glob("*.parquet")}


@pytest.fixture
def ray_folder():
    """Where a run's Ray keeps its logs; sockets in it have short names."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    yield folder
    shutil.rmtree(folder)


def test_killed_process_groups_resume_to_the_same_output(job, job_file, embatch, tmp_path, compact_once, digest_of):
    log, output = tmp_path / "encoded.log", job["output"]["uri"]
    watch = f"encode.start:append={log}"
    committed = {}
    for unit in (2, 7):
        killed = start(job_file, *COMPACT, EMBATCH_FAILPOINTS=f"{watch};encode.start@unit={unit}:sleep=600")
        deadline = time.monotonic() + 90
        while str(unit) not in encoded(log) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        for name, data in committed.items():
            assert shards(output)[name] == data
        started = encoded(log)
        again = (
            [name for name in committed if str(int(name[5:13])) in started[started.index("|") :]]
            if "|" in started
            else []
        )
        assert again == []
        committed = shards(output)
        with log.open("a") as file:
            file.write("- | -\n")
    done = embatch("run", str(job_file), *COMPACT, EMBATCH_FAILPOINTS=watch)
    assert done.returncode == 0, done.stderr
    redone = encoded(log)[len(encoded(log)) - encoded(log)[::-1].index("|") :]
    assert {f"{int(unit):08d}" for unit in redone}.isdisjoint({name[5:13] for name in committed})
    assert digest_of(output) == compact_once.report.content_digest
    assert embatch("verify", output).returncode == 0


@pytest.mark.parametrize("place", ["encode.mid", "commit.before_put", "commit.after_put"])
def test_a_killed_worker_is_replaced_within_the_run(job, job_file, embatch, tmp_path, place):
    marker = tmp_path / "killed"
    rule = f"{place}:once={marker},SIGKILL"
    done = embatch("run", str(job_file), "--json", EMBATCH_FAILPOINTS=rule)
    assert marker.exists(), "the fault never fired"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["rows_ok"] == 300


def test_a_driver_killed_around_the_manifest_finishes_later(job, job_file, embatch, compact_once, digest_of):
    for place in (
        "local.before_link",
        "local.after_link",
        "claim.after_create",
        "plan.before_head",
        "calibration.after_put",
        "manifest.before_put",
        "manifest.after_put",
    ):
        killed = embatch("run", str(job_file), *COMPACT, EMBATCH_FAILPOINTS=f"{place}:SIGKILL")
        assert killed.returncode == -signal.SIGKILL
    done = embatch("run", str(job_file), *COMPACT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["this_run"]["units"] == 0
    assert digest_of(job["output"]["uri"]) == compact_once.report.content_digest


def test_a_unit_that_kills_its_worker_whatever_is_tried_ends_the_run_and_is_named(job_file, embatch, tmp_path):
    log = tmp_path / "encoded.log"
    rules = f"encode.start@unit=5:append={log};encode.start@unit=5:SIGKILL"
    done = embatch("run", str(job_file), "--set", "limits.unit_attempts=1", EMBATCH_FAILPOINTS=rules)
    assert done.returncode == 8
    assert "unit 5 (b.jsonl.gz rows 25 to 49) lost its worker 2 times" in done.stderr
    assert len(encoded(log)) == 2


def test_rows_that_end_their_worker_become_dead_letters_and_cost_no_other_row(job, job_file, embatch):
    output = job["output"]["uri"]
    rules = "encode.text@word=131:SIGKILL;encode.text@word=231:error"
    limits = ("--set", "limits.unit_attempts=1", "--set", "limits.max_dead_rate=0.01")
    done = embatch("run", str(job_file), *limits, "--json", EMBATCH_FAILPOINTS=rules)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["rows_ok"] == 298
    dead = pa.concat_tables(map(pq.read_table, Path(output, "_dead").glob("*.parquet"))).sort_by("source_file")
    alone = "a process that encoded it alone ended {}, twice"
    assert dead.to_pylist() == [
        {"source_file": file, "source_row": 31, "code": "WORKER_KILLED", "reason": alone.format(how)}
        for file, how in (("b.jsonl.gz", "by SIGKILL"), ("c.parquet", "with exit code 1"))
    ]
    told = "lost its worker{}; its rows are tried in a process beside the next one"
    assert "unit 5 (b.jsonl.gz rows 25 to 49) " + told.format("") in done.stderr
    assert "unit 9 (c.parquet rows 25 to 49) " + told.format(" (RuntimeError: failpoint encode.text)") in done.stderr
    assert embatch("verify", output).returncode == 0


def test_a_stalled_unit_ends_the_run_with_its_own_code(job_file, embatch):
    rule = "encode.start@unit=5:sleep=600"
    done = embatch("run", str(job_file), "--set", "limits.stall_seconds=25", EMBATCH_FAILPOINTS=rule)
    assert done.returncode == 7
    # a unit that waits for the same replica has begun too
    assert re.search(r"units being encoded: (\d+, )*5\b", done.stderr)


def test_a_second_run_is_refused_while_the_first_is_alive(job, job_file, embatch, tmp_path):
    log = tmp_path / "encoded.log"
    rules = f"encode.start@unit=5:append={log};encode.start@unit=5:sleep=600"
    first = start(job_file, "--set", "limits.grace_seconds=1", EMBATCH_FAILPOINTS=rules)
    deadline = time.monotonic() + 90
    while not encoded(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    second = embatch("run", str(job_file))
    shown = embatch("status", job["output"]["uri"], "--json")
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=60)
    assert second.returncode == 4
    assert f"run 1 (pid {first.pid}" in second.stderr
    assert json.loads(shown.stdout)["owner_alive"] is True
    assert first.returncode == 8, output
    assert "stopped by SIGTERM" in output
    assert embatch("run", str(job_file)).returncode == 0


@pytest.mark.slow
def test_a_run_that_stood_still_finds_itself_replaced_and_changes_nothing(job, job_file, embatch, tmp_path):
    log, output = tmp_path / "committed.log", job["output"]["uri"]
    rules = f"commit.before_put@unit=5:append={log};commit.before_put@unit=5:sleep=3"
    slow = "hashing:16?delay_ms_per_1000_rows=200000"
    stale = start(job_file, "--model", slow, EMBATCH_FAILPOINTS=rules)
    try:
        deadline = time.monotonic() + 90
        while not encoded(log) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(stale.pid, signal.SIGSTOP)
        assert encoded(log) == ["5"], "the fault never fired"
        done = embatch("run", str(job_file), "--model", slow, "--takeover")
        assert done.returncode == 0, done.stderr
        made = shards(output)
        assert len(made) == 12
        os.killpg(stale.pid, signal.SIGCONT)
        said, _ = stale.communicate(timeout=120)
    finally:
        if stale.poll() is None:
            os.killpg(stale.pid, signal.SIGKILL)
    assert stale.returncode == 4, said
    assert shards(output) == made
    assert embatch("verify", output).returncode == 0


@pytest.mark.slow
def test_a_replica_whose_device_failed_gives_way_to_another(job, job_file, embatch, tmp_path, digest_of):
    marker, undisturbed = tmp_path / "failed", str(tmp_path / "undisturbed")
    done = embatch("run", str(job_file), EMBATCH_FAILPOINTS=f"encode.text@word=131:once={marker},error")
    assert marker.exists(), "the fault never fired"
    assert done.returncode == 0, done.stderr
    lost = "unit 5 (b.jsonl.gz rows 25 to 49) lost its worker (RuntimeError: failpoint encode.text); it is tried again"
    assert lost in done.stderr
    assert embatch("run", str(job_file), "--output", undisturbed).returncode == 0
    assert digest_of(job["output"]["uri"]) == digest_of(undisturbed)
    assert embatch("verify", job["output"]["uri"]).returncode == 0


@pytest.mark.slow
def test_messages_that_get_lost_between_rays_processes_cost_nothing(
    job, job_file, embatch, ray_folder, compact_once, digest_of
):
    methods = ("CoreWorkerService.grpc_client.PushTask", "NodeManagerService.grpc_client.RequestWorkerLease")
    losses = {"num_failures": 4, "req_failure_prob": 25, "resp_failure_prob": 25}
    lost = json.dumps(dict.fromkeys(methods, losses))
    environment = {"RAY_testing_rpc_failure": lost, "RAY_BACKEND_LOG_LEVEL": "info", "RAY_TMPDIR": ray_folder}
    done = embatch("run", str(job_file), *COMPACT, **environment)
    logs = "".join(path.read_text(errors="replace") for path in Path(ray_folder).glob("ray/session_2*/logs/*.log"))
    assert all(f"failure for {method}" in logs for method in methods), "the fault never fired"
    assert done.returncode == 0, done.stderr
    assert digest_of(job["output"]["uri"]) == compact_once.report.content_digest
    assert embatch("verify", job["output"]["uri"]).returncode == 0


@pytest.mark.slow
def test_a_worker_killed_over_the_sample_is_replaced(job_file, embatch, tmp_path):
    marker = tmp_path / "killed"
    done = embatch(
        "run", str(job_file), *COMPACT, "--json", EMBATCH_FAILPOINTS=f"calibration.encode:once={marker},SIGKILL"
    )
    assert marker.exists(), "the fault never fired"
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["vectors"]["sample"] == {"rows": 300, "units": 12, "tokens": report["totals"]["tokens"]}


@pytest.mark.slow
def test_a_unit_that_kills_workers_over_the_sample_is_named(job, job_file, embatch):
    rule = "calibration.encode@unit=5:SIGKILL"
    done = embatch("run", str(job_file), *COMPACT, "--set", "limits.unit_attempts=2", EMBATCH_FAILPOINTS=rule)
    assert done.returncode == 8
    assert "unit 5 (b.jsonl.gz rows 25 to 49) lost its worker 2 times" in done.stderr
    assert not Path(job["output"]["uri"], "_job/calibration.json").exists()
