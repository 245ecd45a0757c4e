"""A span of days is done in order, each day once, and the exit code says what to do about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from samples import ROOT

from jobs.verbs import backfill
from jobs.verbs.backfill import Day

SPAN = ("--from", "2026-11-24", "--to", "2026-11-26")


def days_of(done: subprocess.CompletedProcess[str]) -> list[tuple[str, int | None, int | None, str]]:
    days = json.loads(done.stdout)["days"]
    return [(day["ds"], day["exit_code"], day["rows"], day["outcome"]) for day in days]


@pytest.mark.ray
def test_each_day_with_input_is_done_once(daily_job, add_day, embatch, tmp_path):
    add_day("2026-11-24")
    add_day("2026-11-26")
    first = embatch("backfill", str(daily_job), *SPAN, "--skip-missing", "--json")
    assert first.returncode == 0, first.stderr
    assert days_of(first) == [
        ("2026-11-24", 0, 10, "complete"),
        ("2026-11-25", 0, None, "no input"),
        ("2026-11-26", 0, 10, "complete"),
    ]
    published = sorted(path.parent.parent.name for path in tmp_path.glob("out/*/_job/manifest.json"))
    assert published == ["2026-11-24", "2026-11-26"]
    requested = json.loads((tmp_path / "out/2026-11-26/_job/plan.json").read_text())["requested"]
    assert requested["input"]["uri"] == f"{tmp_path}/corpus/dt=2026-11-26/"
    second = embatch("backfill", str(daily_job), *SPAN, "--keep-going")
    assert second.returncode == 5
    assert [line.split() for line in second.stdout.splitlines()[1:]] == [
        ["day", "exit", "code", "rows", "dead", "letters", "outcome"],
        ["2026-11-24", "0", "10", "0", "complete", "already"],
        ["2026-11-25", "5", "SourceMissingError"],
        ["2026-11-26", "0", "10", "0", "complete", "already"],
    ]


def test_a_failed_day_ends_it(daily_job, embatch):
    done = embatch("backfill", str(daily_job), *SPAN, "--json")
    assert done.returncode == 5
    assert days_of(done) == [
        ("2026-11-24", 5, None, "SourceMissingError"),
        ("2026-11-25", None, None, "not tried"),
        ("2026-11-26", None, None, "not tried"),
    ]


@pytest.mark.slow  # several runs, each with a Ray of its own
@pytest.mark.ray
def test_a_day_worth_a_retry_ends_it_with_its_own_code(daily_job, add_day, embatch):
    add_day("2026-11-25")
    options = ("--keep-going", "--set", "limits.unit_attempts=1", "--json")
    done = embatch("backfill", str(daily_job), *SPAN, *options, EMBATCH_FAILPOINTS="encode.start:SIGKILL")
    assert done.returncode == 8, done.stderr
    assert [(code, outcome) for _, code, _, outcome in days_of(done)] == [
        (5, "SourceMissingError"),
        (8, "PoisonUnitError"),
        (None, "not tried"),
    ]


@pytest.mark.slow  # several runs, each with a Ray of its own
@pytest.mark.ray
def test_a_signal_is_handed_on_to_the_day_under_way(daily_job, add_day, tmp_path):
    add_day("2026-11-24")
    log = tmp_path / "encoded.log"
    running = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "backfill", str(daily_job), *SPAN, "--json"],
        cwd=ROOT,
        env={**os.environ, "EMBATCH_FAILPOINTS": f"encode.start:append={log};encode.start:sleep=600"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 8, errors
    first, second, _ = json.loads(output)["days"]
    assert (first["exit_code"], first["outcome"]) == (8, "InterruptedRunError")
    assert "stopped by SIGTERM" in first["error"]
    assert second["outcome"] == "not tried"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "2026-11-25", "--to", "2026-11-24"), "--from: 2026-11-25 is after --to 2026-11-24"),
        (("--from", "2026-11-24", "--to", "tomorrow"), "--to: 'tomorrow' is not a day; write it as 2026-11-24"),
        ((*SPAN, "--set", "output.uri=out"), "output.uri: 'out' is the same for all days; put {ds} into it"),
        ((*SPAN, "--set", "output.unit_row=1"), "output.unit_row: unknown key; did you mean 'unit_rows'?"),
    ],
)
def test_a_wrong_span_or_job_is_refused_before_the_first_day(daily_job, embatch, arguments, message):
    done = embatch("backfill", str(daily_job), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "day 1 of" not in done.stderr


def test_a_killed_day_counts_as_interrupted():
    killed = backfill._day("2026-11-24", -9, '{"torn', skip_missing=True)
    assert killed == Day(ds="2026-11-24", exit_code=8, outcome="killed by signal 9")


@pytest.mark.parametrize(
    ("codes", "finished", "code"),
    [
        ([0, 0], True, 0),
        ([0], False, 8),
        ([0, 3, 5, 0], True, 3),
        ([3], False, 3),
        ([3, 0, 9], False, 9),
        ([10, 0], True, 10),
    ],
)
def test_exit_code_is_that_of_the_day_that_says_what_to_do(codes, finished, code):
    assert backfill._exit_code(codes, finished=finished) == code
