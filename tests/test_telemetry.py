"""Rates and time left are of the work alone, and a log says when there is none yet."""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest

from jobs import listeners
from jobs.verbs.status import _lines as status_lines
from pipeline import plan as plans
from pipeline import tracking
from pipeline.checkpoint import claims
from pipeline.config import parse_job
from pipeline.encoders import precision
from pipeline.status import status
from pipeline.storage import open_store
from pipeline.telemetry import Meter, Progress


def progress(rows: int, units: int = 0) -> Progress:
    return Progress(
        units_done=units,
        units_total=1,
        rows_done=rows,
        rows_total=100,
        rows_dead=0,
        tokens_done=rows * 10,
        bytes_done=0,
        bytes_total=10,
        rows_per_s=5.0,
        tokens_per_s=50.0,
        left_seconds=None,
    )


def test_the_wait_for_the_first_row_is_in_no_rate():
    meter = Meter()
    for second in range(31):
        assert meter.rates(float(second), 7, 70, 700) == (0.0, 0.0, 0.0)
    assert meter.rates(32.0, 107, 1070, 700) == (50.0, 500.0, 0.0)
    assert meter.rates(34.0, 207, 2070, 1500) == (50.0, 500.0, 200.0)


def test_a_stall_counts_once_there_was_work():
    meter = Meter()
    meter.rates(0.0, 0, 0, 0)
    meter.rates(2.0, 100, 0, 0)
    assert meter.rates(10.0, 100, 0, 0)[0] == 10.0


def test_a_log_says_that_replicas_start_until_a_row_is_encoded(capsys, monkeypatch):
    monkeypatch.setattr(listeners, "LOG_LINE_SECONDS", 0.0)
    lines = listeners.LogLines()
    lines.planned(progress(40), lost_work_units=4)
    lines.progressed(progress(40))
    lines.progressed(progress(60))
    first, *said = capsys.readouterr().err.splitlines()
    assert first == "100 rows in 1 unit; a kill costs at most 1 unit of work"
    assert said == [
        "0/1 units, 40/100 rows, 0 dead letters, replicas are starting",
        "0/1 units, 60/100 rows, 0 dead letters, 5 rows/s, 50 tokens/s, ? left",
    ]


def test_a_log_and_the_status_say_how_far_a_calibration_is(capsys, monkeypatch, job, tmp_path):
    monkeypatch.setattr(listeners, "LOG_LINE_SECONDS", 0.0)
    plan, store = plans.make_plan(parse_job(job), precision.detect("cpu")), open_store(str(tmp_path / "out"))
    plans.publish(store, plan)
    tracker, lines = tracking.Tracker(plan, {}), listeners.LogLines()
    tracker.sampled(3, 16)
    lines.progressed(tracker.progress())
    sampling = "0/12 units, 0/300 rows, 0 dead letters, calibrating by a sample, 3 of 16 units\n"
    assert capsys.readouterr().err == sampling
    with claims.held(claims.acquire(store, interval_s=0.05), lambda _: {}) as claim:
        claim.report_with(lambda: asdict(tracker.progress()))
        while "sample_units" not in (claims.heartbeat(store, 1) or {}):
            time.sleep(0.01)
        said = dict(status_lines(status(str(tmp_path / "out"))))
    assert said["calibration"] == "being made: 3 of 16 units of its sample are encoded"
    tracker.sampled(0, 0)
    lines.progressed(tracker.progress())
    assert capsys.readouterr().err.endswith("replicas are starting\n")


@pytest.mark.parametrize(("units", "lost"), [(0, "1 unit"), (1, "0 units")])
def test_no_more_is_lost_to_a_kill_than_is_to_do(capsys, units, lost):
    listeners.LogLines().planned(progress(0, units), lost_work_units=4)
    assert f"a kill costs at most {lost} of work" in capsys.readouterr().err


def test_time_left_counts_what_is_in_flight(job, monkeypatch):
    plan = plans.make_plan(parse_job(job), precision.detect("cpu"))
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(tracking.time, "monotonic", lambda: next(now))
    tracker = tracking.Tracker(plan, {})
    assert tracker.progress().left_seconds is None
    tracker.update(None, 100, 1000)
    assert tracker.progress().left_seconds == pytest.approx(20.0, rel=0.01)  # 100 of 300 rows in 10 s, none committed
    tracker.update(None, 200, 2000)
    assert tracker.progress().left_seconds == pytest.approx(10.0, rel=0.01)
