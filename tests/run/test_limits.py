"""A run that is told to stop commits what is in flight, ends with exit 8, and the same command completes it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from commands import encoded, start
from pages import report_and_page

from pipeline.config import parse_job
from pipeline.exceptions import LimitReachedError
from pipeline.job import run

pytestmark = pytest.mark.ray

FOR_EVER = "encode.start:sleep=600"
WAIT_SECONDS = 90


@pytest.fixture
def log(tmp_path):
    """What the runs began to encode."""
    return tmp_path / "encoded.log"


def begin(job_file, log, what, *arguments):
    """Start a run and wait until it encodes."""
    started = start(job_file, *arguments, EMBATCH_FAILPOINTS=f"encode.start:append={log};{what}")
    until = time.monotonic() + WAIT_SECONDS
    while not encoded(log) and time.monotonic() < until:
        time.sleep(0.1)
    assert encoded(log)
    return started


def committed(output):
    return {path.name: path.read_bytes() for path in Path(output, "data").glob("*.parquet")}


def said_as_json(text, output):
    """Each line is an object that names the run and, once there is one, its plan."""
    lines = [json.loads(line) for line in text.splitlines()]
    report = report_of(output)
    owner = json.loads(Path(output, f"_job/runs/{report['run']:06d}.json").read_text())["owner"]
    assert {line["run_id"] for line in lines} == {report["run_id"]} == {owner}
    assert {line["job"] for line in lines} == {"embatch"}
    assert {line["plan_id"] for line in lines} == {report["plan_id"]}
    assert "already committed" in lines[0]["message"]
    assert lines[0]["units_total"] == 12


def units(names):
    return sorted(int(name[5:13]) for name in names)


def report_of(output):
    return json.loads(Path(output, "_job/report.json").read_text())


def with_limits(config, delay_ms, **limits):
    """The job with units of 25 rows that take a while."""
    values = config.model_dump()
    values["encoder"]["model"] = f"hashing:16?delay_ms_per_1000_rows={40 * delay_ms}"
    return parse_job({**values, "limits": limits})


def test_sigterm_commits_what_is_in_flight_and_the_same_command_completes(
    job, job_file, log, embatch, digest_of, run_once
):
    output = job["output"]["uri"]
    stopped = begin(job_file, log, "encode.start:sleep=3")
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    assert "stopped by SIGTERM; run the same command again to continue (exit 8)" in said
    kept, begun = committed(output), sorted(map(int, encoded(log)))
    assert units(kept) == begun
    assert 0 < len(begun) < 12
    report, page = report_and_page(output)
    assert "stopped, exit 8" in page.words
    assert (report["complete"], report["exit_code"], report["this_run"]["units"]) == (False, 8, len(begun))
    assert report["error"] == "stopped by SIGTERM; run the same command again to continue"
    assert "units in flight have 25 s to finish" in report["warnings"][0]

    done = embatch(
        "--log-format", "json", "run", str(job_file), "--json", EMBATCH_FAILPOINTS=f"encode.start:append={log}"
    )
    assert done.returncode == 0, done.stderr
    said_as_json(done.stderr, output)
    continued, page = report_and_page(output)
    assert "complete, exit 0" in page.words
    assert (continued["totals"]["units"], continued["this_run"]["units"]) == (12, 12 - len(begun))
    assert sum(found["rows"] for found in continued["this_run"]["token_lengths"]) == continued["this_run"]["rows_ok"]
    assert report_and_page(output, run=1)[0] == report
    assert sorted(map(int, encoded(log))) == list(range(12)), "a unit was encoded twice or never"
    assert {name: committed(output)[name] for name in kept} == kept
    assert digest_of(output) == run_once.report.content_digest


@pytest.mark.slow  # a run of its own
def test_a_second_signal_ends_the_run_at_once(job, job_file, log):
    stopped = begin(job_file, log, FOR_EVER, "--set", "limits.grace_seconds=500")
    stopped.send_signal(signal.SIGTERM)
    for line in stopped.stdout:
        if "units in flight have 500 s to finish" in line:
            break
    stopped.send_signal(signal.SIGINT)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    assert "stopped by SIGINT" in said
    assert committed(job["output"]["uri"]) == {}
    assert report_of(job["output"]["uri"])["error"].startswith("stopped by SIGINT")


def test_without_grace_the_first_signal_ends_the_run_at_once(job_file, log):
    stopped = begin(job_file, log, FOR_EVER, "--set", "limits.grace_seconds=0")
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    assert "units in flight" not in said


def test_what_does_not_finish_in_the_grace_time_is_left_to_the_next_run(job, job_file, log):
    stopped = begin(job_file, log, FOR_EVER, "--set", "limits.grace_seconds=3")
    stopped.send_signal(signal.SIGHUP)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    report = report_of(job["output"]["uri"])
    assert report["error"].startswith("stopped by SIGHUP")
    assert "units in flight did not finish within limits.grace_seconds=3" in report["warnings"][-1]
    assert committed(job["output"]["uri"]) == {}


@pytest.mark.slow  # a run of its own
def test_a_worker_lost_in_the_grace_time_is_not_waited_for(job, job_file, log):
    stopped = begin(job_file, log, FOR_EVER, "--set", "limits.grace_seconds=500")
    stopped.send_signal(signal.SIGTERM)
    for line in stopped.stdout:
        if "units in flight have 500 s to finish" in line:
            break
    for pid in {int(line.split()[2]) for line in log.read_text().splitlines()}:
        os.kill(pid, signal.SIGKILL)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    assert report_of(job["output"]["uri"])["error"].startswith("stopped by SIGTERM")


def test_sigterm_while_ray_starts_ends_the_run(job, job_file):
    stopped = start(job_file, EMBATCH_FAILPOINTS=FOR_EVER)
    until = time.monotonic() + WAIT_SECONDS
    while not Path(job["output"]["uri"], "_job/plan.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=WAIT_SECONDS)
    assert stopped.returncode == 8, said
    assert report_of(job["output"]["uri"])["error"].startswith("stopped by SIGTERM")


def test_a_deadline_that_passes_while_planning_ends_the_run(job, job_file, embatch):
    done = embatch("run", str(job_file), "--set", "limits.deadline=6s", EMBATCH_FAILPOINTS="plan.before_head:sleep=200")
    assert done.returncode == 8, done.stderr
    assert "limits.deadline=6s is reached; run the same command again to continue" in done.stderr
    assert not Path(job["output"]["uri"], "_job/plan.json").exists()
    assert "no plan yet" in report_and_page(job["output"]["uri"])[1].words
    assert embatch("run", str(job_file)).returncode == 0


@pytest.mark.slow  # two runs; the signal above takes the same way
def test_a_deadline_commits_what_is_in_flight_and_the_next_run_completes(config):
    late = with_limits(config, delay_ms=2000, deadline="8s")  # twelve units take two replicas 12 s
    with pytest.raises(LimitReachedError, match=r"limits\.deadline=8s"):
        run(late)
    kept = committed(config.output.uri)
    report = report_of(config.output.uri)
    assert (report["exit_code"], report["this_run"]["units"]) == (8, len(kept))
    done = run(with_limits(config, delay_ms=2000))
    assert done.complete
    assert done.this_run["units"] == 12 - len(kept)
    assert {name: committed(config.output.uri)[name] for name in kept} == kept


@pytest.mark.slow  # a run of its own
def test_a_budget_of_tokens_is_exceeded_by_units_in_flight_only(config):
    limited = with_limits(config, delay_ms=1000, max_tokens=1)
    with pytest.raises(LimitReachedError, match=r"limits\.max_tokens=1 is reached"):
        run(limited)
    in_one_run = report_of(config.output.uri)["this_run"]["units"]
    assert 1 <= in_one_run <= 2 + 2 * 2  # what two replicas encoded in the second before, and have in flight
    assert run(with_limits(config, delay_ms=1000)).totals["rows_ok"] == 300


def test_a_budget_that_suffices_changes_nothing(config):
    report = run(with_limits(config, delay_ms=0, max_tokens=10**9, deadline="1d"))
    assert (report.complete, report.warnings) == (True, [])
