"""Which stage a run's report names, from measured seconds."""

from __future__ import annotations

import time

import pytest
from receipts import receipt, unit

from pipeline.course import Course
from pipeline.exceptions import ModelError
from pipeline.records import BLOCKED, STARVED
from pipeline.report import Timing, exit_code, run_totals
from pipeline.telemetry import FirstBatch


def totals_of(seconds, timing, replicas):
    course = Course()
    kept = [course.take(receipt(0, seconds, rows=1100, tokens=11_000))] if seconds else []
    return run_totals(kept, timing, replicas, course, [unit(0)])


def timing(*, startup: float, steady: float) -> Timing:
    now = time.monotonic()
    first = FirstBatch(at=now - steady, rows=100, tokens=1000)
    return Timing(started=now - steady - startup, first=first, last=now, encoding_seconds=steady + startup)


@pytest.mark.parametrize(
    ("seconds", "bottleneck"),
    [
        ({"encode": 195.0, STARVED: 5.0}, "encode"),
        ({"encode": 80.0, STARVED: 100.0, BLOCKED: 5.0}, "read"),
        ({"encode": 80.0, STARVED: 5.0, BLOCKED: 100.0}, "commit"),
        ({"encode": 110.0, STARVED: 1.0}, "encode"),
    ],
)
def test_the_bottleneck_is_what_replicas_waited_for(seconds, bottleneck):
    totals = totals_of(seconds, timing(startup=10, steady=100), replicas=2)
    assert totals["bottleneck"] == bottleneck
    assert totals["replicas_busy"] == pytest.approx(seconds["encode"] / 200)


def test_start_up_is_named_where_it_took_longer_than_the_work():
    totals = totals_of({"encode": 5.0}, timing(startup=10, steady=3), replicas=2)
    assert totals["bottleneck"] == "start-up"


def test_steady_rates_leave_start_up_and_the_first_batch_out():
    totals = totals_of({"encode": 195.0}, timing(startup=10, steady=100), replicas=2)
    assert totals["startup_seconds"] == pytest.approx(10, abs=0.01)
    assert totals["steady_rows_per_s"] == pytest.approx(10)
    assert totals["steady_tokens_per_s"] == pytest.approx(100)


def test_a_run_that_encoded_nothing_names_no_bottleneck():
    totals = totals_of({}, Timing(started=time.monotonic()), replicas=0)
    assert totals["bottleneck"] is None
    assert totals["startup_seconds"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 0), (ModelError("m", "is not there"), 6), (KeyboardInterrupt(), 8), (ValueError("a mistake of ours"), 1)],
)
def test_each_way_to_end_has_its_exit_code(error, code):
    assert exit_code(error) == code
