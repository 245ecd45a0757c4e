"""`embatch status --watch` follows a run from another process and ends with it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from commands import start
from samples import ROOT

pytestmark = pytest.mark.ray
WAIT_SECONDS = 90


def watch(output, *arguments, **streams):
    command = [sys.executable, "-m", "jobs.cli", "status", output, "--watch", *arguments]
    return subprocess.Popen(command, cwd=ROOT, **streams)


def wait_for(path):
    until = time.monotonic() + WAIT_SECONDS
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert path.exists()


def test_a_complete_output_is_shown_once(finished, embatch):
    done = embatch("status", finished.config.output.uri, "--watch")
    assert done.returncode == 0, done.stderr
    assert "12 of 12 committed (100.0%)" in done.stdout
    assert done.stderr == ""


def test_an_output_without_plan_or_run_is_an_error(embatch, tmp_path):
    assert embatch("status", str(tmp_path), "--watch").returncode == 2


@pytest.mark.slow  # a run that takes its time
def test_a_run_is_followed_from_its_planning_to_its_end(job, job_file):
    output = job["output"]["uri"]
    running = start(job_file, EMBATCH_FAILPOINTS="plan.before_head:sleep=3;encode.start:sleep=4")
    wait_for(Path(output, "_job/runs/000001.json"))
    watching = watch(output, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, lines = watching.communicate(timeout=200)
    running.communicate(timeout=WAIT_SECONDS)
    assert (watching.returncode, running.returncode) == (0, 0)
    assert json.loads(said)["complete"] is True
    assert "running: units" in lines


def test_a_terminal_is_drawn_anew_until_a_run_is_stopped(job, job_file):
    output = job["output"]["uri"]
    running = start(job_file, "--set", "limits.grace_seconds=0", EMBATCH_FAILPOINTS="encode.start:sleep=600")
    wait_for(Path(output, "_job/plan.json"))
    ours, theirs = pty.openpty()
    watching = watch(output, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    drawn = b""
    while b"of 300 committed" not in drawn:
        drawn += os.read(ours, 4096)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=WAIT_SECONDS)
    with suppress(OSError):  # the terminal is closed at the end
        while chunk := os.read(ours, 4096):
            drawn += chunk
    said, _ = watching.communicate(timeout=WAIT_SECONDS)
    os.close(ours)
    assert watching.returncode == 0
    assert b"0 of 12 committed" in drawn
    assert b"\x1b[1A" in drawn, "nothing was drawn over"
    assert "incomplete; run the job again to continue" in said
    assert "stopped by SIGTERM" in said
