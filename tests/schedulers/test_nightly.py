"""cron and systemd run what is missing up to yesterday, and again where the exit code says so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from samples import ROOT

from jobs.schedulers.exit_codes import ACTIONS, should_retry

NIGHTLY = ROOT / "jobs/schedulers/cron/embatch-nightly"
SYSTEMD = ROOT / "jobs/schedulers/systemd"
YESTERDAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


def start(job: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    """Start the wrapper over the real command, without pauses."""
    command = {"EMBATCH": str(Path(sys.executable).parent / "embatch"), "EMBATCH_DAYS": "1", "EMBATCH_PAUSE": "0"}
    return subprocess.Popen(
        [NIGHTLY, str(job), *options],
        env={**os.environ, **command, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow  # several runs, each with a Ray of its own
@pytest.mark.ray
def test_a_night_that_is_interrupted_is_tried_again_to_its_end(daily_job, add_day, tmp_path):
    add_day(YESTERDAY)
    kills = [f"encode.start@unit=1:once={tmp_path / name},SIGKILL" for name in ("first", "second")]
    fault = {"EMBATCH_FAILPOINTS": ";".join(kills)}
    night = start(daily_job, "--set", "limits.unit_attempts=1", **fault)
    output, errors = night.communicate(timeout=200)
    assert night.returncode == 0, errors
    assert errors.count("embatch-nightly: run 1 of 5 ended with exit code 8; again in 0 s") == 1
    assert f"{daily_job}: 0 of 1 days are done" in output
    assert f"{daily_job}: 1 of 1 days are done" in output


@pytest.mark.ray
@pytest.mark.slow  # three runs that are stopped
def test_a_night_is_tried_no_more_often_than_it_may(daily_job, add_day):
    add_day(YESTERDAY)
    options = ("--set", "limits.unit_attempts=1", "--set", "output.unit_rows=10")
    night = start(daily_job, *options, EMBATCH_TRIES="2", EMBATCH_FAILPOINTS="encode.start:SIGKILL")
    _, errors = night.communicate(timeout=200)
    assert night.returncode == 8
    assert errors.count("embatch-nightly:") == 1


@pytest.mark.slow  # several runs, each with a Ray of its own
@pytest.mark.ray
def test_a_night_that_is_told_to_stop_hands_that_on_and_is_not_tried_again(daily_job, add_day, tmp_path):
    add_day(YESTERDAY)
    log = tmp_path / "encoded.log"
    night = start(daily_job, EMBATCH_FAILPOINTS=f"encode.start:append={log};encode.start:sleep=600")
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    night.send_signal(signal.SIGTERM)
    output, errors = night.communicate(timeout=60)
    assert night.returncode == 8, errors
    assert "InterruptedRunError" in output
    assert "embatch-nightly:" not in errors


def test_a_night_without_input_is_done(daily_job):
    night = start(daily_job, EMBATCH_DAYS="2")
    output, errors = night.communicate(timeout=100)
    assert night.returncode == 0, errors
    assert output.count("no input") == 2
    assert YESTERDAY in output


def test_a_mistake_is_not_tried_again(daily_job):
    night = start(daily_job, "--set", "output.unit_row=1")
    _, errors = night.communicate(timeout=100)
    assert night.returncode == 2
    assert "embatch-nightly:" not in errors


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit file, each with all its values."""
    settings: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def test_service_is_started_again_after_the_codes_worth_it_and_no_other():
    service = unit("embatch@.service")
    worth = [str(code) for code in sorted(ACTIONS) if should_retry(code)]
    assert service["RestartForceExitStatus"] == [" ".join([*worth, "SIGKILL"])]
    assert service["Restart"] == ["no"]
    assert service["Type"] != ["oneshot"]
    assert "EMBATCH_TRIES=1" in service["Environment"][0].split()


def test_service_is_started_a_bounded_number_of_times_and_has_time_to_end():
    service = unit("embatch@.service")
    assert (service["StartLimitIntervalSec"], service["StartLimitBurst"]) == (["12h"], ["6"])
    assert (service["KillMode"], service["TimeoutStopSec"]) == (["mixed"], ["120"])


def test_timer_makes_up_for_a_night_the_machine_was_off():
    assert unit("embatch@.timer")["Persistent"] == ["true"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_units_are_what_systemd_takes(tmp_path):
    for name in ("embatch@.service", "embatch@.timer"):
        text = (SYSTEMD / name).read_text().replace("/opt/embatch/bin/embatch-nightly", str(NIGHTLY))
        (tmp_path / name.replace("@", "@docs")).write_text(text.replace("User=embatch", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_crontab_has_one_command_a_line_and_no_bare_percent():
    lines = (ROOT / "jobs/schedulers/cron/embatch.cron").read_text().splitlines()
    commands = [line for line in lines if re.match(r"[\d*]", line)]
    assert len(commands) == 1
    assert re.fullmatch(r"(\S+ ){5}embatch embatch-nightly /etc/embatch/\S+\.yaml >>\S+ 2>&1 \|\| echo .*", commands[0])
    assert "%" not in commands[0]


def test_wrapper_is_executable_and_bash_reads_it():
    assert os.access(NIGHTLY, os.X_OK)
    assert subprocess.run(["bash", "-n", NIGHTLY], check=False).returncode == 0
