"""One calibration a job: who comes second takes the first one's, and shards of another are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.calibration import Calibration
from pipeline.checkpoint import calibrations
from pipeline.exceptions import DamagedOutputError


@pytest.fixture
def made(plan_id):
    """A calibration of the plan."""
    return Calibration(
        plan_id=plan_id,
        vectors="int8",
        dimension=2,
        sample_rows=9,
        sample_units=3,
        recall_at_10=0.9,
        scale=(0.5, 0.25),
        offset=(0.0, 1.0),
    )


def test_the_first_one_counts_for_both_drivers(store, plan_id, made):
    late = replace(made, scale=(0.125, 0.125))
    assert calibrations.publish(store, made) == made
    assert calibrations.publish(store, late) == made
    assert calibrations.load(store, plan_id, "int8") == made


def test_none_is_there_before_it_is_made(store, plan_id):
    assert calibrations.load(store, plan_id, "int8") is None


def test_float32_needs_none(store, plan_id):
    store.create(calibrations.KEY, b"of no concern")
    assert calibrations.load(store, plan_id, "float32") is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format":1}'])
def test_what_is_no_calibration_is_damage(store, plan_id, data):
    store.create(calibrations.KEY, data)
    with pytest.raises(DamagedOutputError, match=calibrations.KEY):
        calibrations.load(store, plan_id, "int8")


@pytest.mark.parametrize("other", [{"plan_id": "f" * 64}, {"vectors": "binary"}])
def test_one_of_another_plan_is_damage(store, plan_id, made, other):
    calibrations.publish(store, replace(made, **other))
    with pytest.raises(DamagedOutputError, match=r"calibration\.json is of plan"):
        calibrations.load(store, plan_id, "int8")


def test_shards_of_another_calibration_are_refused(store, made, make_shard):
    ours, theirs = (replace(make_shard(unit).receipt, calibration=made.digest) for unit in range(2))
    calibrations.refuse_others(store, made, [ours, theirs])
    theirs = replace(theirs, calibration="0" * 64)
    with pytest.raises(DamagedOutputError, match=r"part-00000001-.* was made with the calibration 0+, which"):
        calibrations.refuse_others(store, made, [ours, theirs])
    with pytest.raises(DamagedOutputError, match=r"calibration\.json is missing; put that file back \(so were 1 more"):
        calibrations.refuse_others(store, None, [ours, theirs])
