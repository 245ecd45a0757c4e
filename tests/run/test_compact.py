"""Compact vectors through the whole job: one calibration, the same codes however it was run, and what is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import plan as plans
from pipeline import planning, verify
from pipeline.calibration import Calibration, from_json
from pipeline.checkpoint import calibrations
from pipeline.config import JobConfig, parse_job
from pipeline.exceptions import DamagedOutputError, LimitReachedError
from pipeline.job import run
from pipeline.storage import open_store

pytestmark = pytest.mark.ray


def compact(config: JobConfig, replicas: int = 2, **limits: object) -> JobConfig:
    values = config.model_dump()
    values["output"] |= {"vectors": "int8"}
    values["limits"] |= limits
    values["cluster"] |= {"replicas": replicas}
    return parse_job(values)


def calibration(config: JobConfig) -> bytes:
    return Path(config.output.uri, calibrations.KEY).read_bytes()


def test_codes_are_the_same_with_other_replicas_and_after_a_stop(config, compact_once):
    whole, report = compact_once.config, compact_once.report
    sample = report.vectors["sample"]["tokens"]
    stopped = compact(config, replicas=1, max_tokens=sample + 400)
    with pytest.raises(LimitReachedError):
        run(stopped)
    assert 0 < len(list(Path(stopped.output.uri, "data").iterdir())) < report.totals["units"]
    first, place = calibration(stopped), Path(stopped.output.uri, calibrations.KEY)
    place.unlink()
    with pytest.raises(DamagedOutputError, match=r"calibration\.json is missing; put that file back"):
        run(stopped)
    place.write_bytes(first)
    again = run(compact(config))
    assert again.content_digest == report.content_digest
    assert calibration(stopped) == first
    theirs = from_json(calibration(whole))
    assert replace(from_json(first), plan_id=theirs.plan_id) == theirs
    for output in (whole, stopped):
        assert verify(output.output.uri).findings == ()
    assert report.vectors == {
        "kind": "int8",
        "bytes_a_row": 16,
        "recall_at_10": from_json(first).recall_at_10,
        "clipped_share": 0.0,
        "sample": {"rows": 300, "units": 12, "tokens": report.totals["tokens"]},
    }
    assert report.vectors["recall_at_10"] > 0.9
    assert report.totals["scripts"] == {"Latin": 300}
    assert json.loads(Path(whole.output.uri, "_job/report.json").read_text())["vectors"] == report.vectors


def test_a_calibration_that_is_there_is_taken(config):
    """As where another driver was first, or a run was stopped before its first commit."""
    job = compact(config)
    plan, store = planning.make(job), open_store(job.output.uri)
    plans.publish(store, plan)
    values = {"sample_rows": 1, "sample_units": 1, "scale": (0.01,) * 16, "offset": (0.0,) * 16}
    theirs = calibrations.publish(
        store, Calibration(plan_id=plan.plan_id, vectors="int8", dimension=16, recall_at_10=None, **values)
    )
    report = run(job)
    assert report.vectors["sample"] == {"rows": 1, "units": 1, "tokens": None}
    assert from_json(calibration(job)) == theirs
    assert verify(job.output.uri).findings == ()
