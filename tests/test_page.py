"""The page of a report: it is whole without a network, stays small, and shows users' names as text."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest
from pages import Page, agree, needs_nothing
from receipts import receipt, unit

from pipeline.course import Course
from pipeline.page import charts, render
from pipeline.records import BLOCKED, STARVED
from pipeline.report import RunReport, Timing, run_totals
from pipeline.telemetry import FirstBatch

EVIL = '<script>alert("1")</script>&amp;'


def made_report(*, units: int = 30, samples: int = 90, cost: float | None = None, **values: Any) -> dict[str, Any]:
    """The report of a run that did `units` and was stopped."""
    course = Course()
    stages = {"read": 0.1, "tokenize": 0.2, "encode": 1.5, "commit": 0.3, STARVED: 0.1, BLOCKED: 0.0}
    kept = [course.take(receipt(number, stages, lengths=[0, 3, 7])) for number in range(units)]
    for second in range(samples):
        course.sample(9.0 + second, 12 * second, 400 * second)
    first = FirstBatch(at=9.0, rows=8, tokens=300) if units else None
    timing = Timing(started=0.0, first=first, last=99.0, encoding_seconds=90.0)
    planned = [unit(number, files=5) for number in range(units)]
    this_run = {**run_totals(kept, timing, 2, course, planned), "cost": cost}
    totals = {**this_run, "units_planned": 400, "rows_planned": 4000, "rows_in": this_run["rows"]}
    totals |= {"truncated": 3, "chars": 999, "chars_lost": 99, "tokens_lost_estimate": 9}
    encoder = {"model": "m", "revision": "", "dimension": 4, "dtype": "float32", "backend": "packed"}
    encoder |= {"max_batch_tokens": 2048, "max_seq_length": 256}
    fields: dict[str, Any] = {"name": "docs", "output": "s3://out/docs", "run": 1, "run_id": "ab", "plan_id": "cd"}
    fields |= {"started": "2026-11-27T22:00:01+00:00", "ended": "2026-11-27T22:01:22+00:00", "complete": False}
    fields |= {"exit_code": 8, "error": "stopped by SIGTERM", "trial": False, "totals": totals, "this_run": this_run}
    fields |= {"content_digest": None, "encoder": encoder, "device": "cpu", "replicas": 2, "devices": {"cpu": 2}}
    fields |= {"hosts": {"here": 2}, "versions": {"embatch": "0.1.0"}, "parameters": {"input": {"uri": "in/"}}}
    return asdict(RunReport(**{**fields, **values}))


def test_every_figure_is_the_reports_and_nothing_is_fetched():
    report = made_report()
    page = Page(render(report))
    agree(report, page)
    needs_nothing(page)
    assert page.tags["svg"] == 2
    assert "stopped, exit 8" in page.words
    assert "stopped by SIGTERM" in page.words
    assert "encoding" in page.words
    assert "90.0% full" in page.words


def test_a_hosted_models_cost_is_shown_where_it_has_a_price():
    assert "cost0.0012 0.0012" in " ".join(Page(render(made_report(cost=0.0012))).words.split())
    assert "cost" not in Page(render(made_report())).words


@pytest.mark.parametrize(
    "values",
    [
        {"error": EVIL},
        {"warnings": [EVIL]},
        {"output": EVIL},
        {"hosts": {EVIL: 1}, "devices": {EVIL: 1}},
        {"parameters": {"input": {"uri": EVIL, EVIL: EVIL}}},
        {"versions": {"embatch": EVIL}},
    ],
)
def test_what_users_named_is_text(values):
    page = Page(render(made_report(**values)))
    assert EVIL in page.words
    needs_nothing(page)


@pytest.mark.parametrize(
    ("exit_code", "complete", "word"), [(0, True, "complete"), (8, False, "stopped"), (3, False, "failed")]
)
def test_it_says_how_the_run_ended(exit_code, complete, word):
    page = Page(render(made_report(exit_code=exit_code, complete=complete, error=None)))
    assert f"{word}, exit {exit_code}" in page.words


def test_a_run_that_encoded_nothing_has_a_page():
    page = Page(render(made_report(units=0, samples=0, devices={}, hosts={})))
    assert page.tags["svg"] == 0
    assert "nothing was encoded" in page.words


def test_a_run_that_ended_before_its_plan_has_a_page():
    report = made_report(units=0, samples=0, encoder={}, device="", plan_id="", devices={}, hosts={})
    for name in ("units_planned", "rows_planned"):
        del report["totals"][name]
    assert "no plan yet" in Page(render(report)).words


def test_a_page_does_not_grow_with_the_run():
    small = render(made_report())
    hosts = {f"node-{number}": 8 for number in range(5000)}
    warnings = [f"warning {number}" for number in range(5000)]
    large = render(made_report(units=2000, samples=9000, hosts=hosts, warnings=warnings, error="x" * 10**6))
    assert len(large) < len(small) + 30_000
    assert "and 4950 more" in Page(large).words


def test_rates_are_means_over_a_window():
    seconds = [float(second) for second in range(20)]
    assert charts.rates(seconds, [7 * second for second in range(20)])[1:] == pytest.approx([7.0] * 19)
    assert charts.rates([], []) == []


@pytest.mark.parametrize(("highest", "labels"), [(0.0, 2), (0.3, 5), (7, 5), (135, 4), (6421, 5), (1e9, 5)])
def test_a_charts_labels_are_few_and_reach_over_its_line(highest, labels):
    chart = charts.chart([1.0, 2.0, 3.0], [0.0, highest, highest / 2], 1.5, 0.0)
    assert len(chart.y_labels) <= labels + 1
    top = chart.y_labels[-1].at
    heights = [float(point.split(",")[1]) for point in chart.line.removeprefix("M").split(" L")]
    assert min(heights) >= top - 0.1 or highest == 0
    assert max(heights) == charts.HEIGHT - charts.BOTTOM


@pytest.mark.parametrize("seconds", [2, 59, 61, 3599, 7201, 90_000, 4_000_000])
def test_times_below_a_chart_do_not_run_into_each_other(seconds):
    chart = charts.chart([1.0, float(seconds)], [1.0, 1.0], None, 1.0)
    places = [label.at for label in chart.x_labels]
    assert 2 <= len(places) <= 7
    assert all(later - earlier > 40 for earlier, later in pairwise(places))
