"""The audit names rows that a plan leaves out, doubles or reads at a wrong place."""

from __future__ import annotations

from dataclasses import replace

from made_outputs import (
    embed,
    job,
    lines,
)

from pipeline import plan as plans
from pipeline.audit import verify
from pipeline.audit.units import unit_faults
from pipeline.encoders import precision
from pipeline.plan import Plan, document
from pipeline.records import Slice, Unit


def replan(plan: Plan, unit: int, **changes: int) -> Plan:
    """The plan of a planner that is wrong about one slice."""
    units = list(plan.units)
    (piece,) = units[unit].slices
    units[unit] = replace(units[unit], slices=(replace(piece, **changes),))
    return document.build(plan.requested, plan.resolved, plan.schema, units)


def test_finds_rows_that_were_read_at_wrong_offsets(pristine, tmp_path):
    (piece,) = pristine.plan.units[2].slices
    line = len(lines(20, 1))
    wrong = replan(pristine.plan, 2, start=piece.start + line, end=piece.end + line)
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    key = plans.shard_key(wrong.plan_id, 2)
    assert verify(str(tmp_path / "output")).findings == (
        f"{key}: a.jsonl row 40 has id 'row-19', its source 'row-18' (and 19 more rows)",
        f"{key}: a.jsonl row 40 has a vector that is not of its text (and 19 more rows)",
        f"{key}: a.jsonl row 40 has section s1, its source s0",
        f"{key}: a.jsonl row 40 has year 19, its source 18",
    )


def test_finds_rows_that_were_never_planned(pristine, tmp_path):
    (piece,) = pristine.plan.units[5].slices
    wrong = replan(pristine.plan, 5, rows=piece.rows - 1, end=piece.end - len(lines(124, 1)))
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    (finding,) = verify(str(tmp_path / "output")).findings
    assert finding == "source file b.jsonl.gz: goes on after row 23, the last one planned"


def test_finds_rows_left_out_of_a_trial_that_was_to_have_all(pristine, tmp_path):
    config = job(pristine.corpus, tmp_path / "output", input={"limit": 1000})
    wrong = replan(plans.make_plan(config, precision.detect("cpu")), 10, rows=8)
    embed(config, wrong)
    left_out = "source file e.parquet: goes on after row 27, the last one planned"
    assert verify(str(tmp_path / "output")).findings == (left_out,)


def test_finds_rows_left_out_before_the_last_file_of_a_trial(pristine, tmp_path):
    config = job(pristine.corpus, tmp_path / "output", input={"limit": pristine.plan.rows - 1})
    plan = plans.make_plan(config, precision.detect("cpu"))
    (piece,) = plan.units[5].slices
    wrong = replan(replan(plan, 10, rows=9), 5, rows=4, end=piece.end - len(lines(124, 1)))
    embed(config, wrong)
    left_out = "source file b.jsonl.gz: goes on after row 23, the last one planned"
    assert verify(str(tmp_path / "output")).findings == (left_out,)


def test_finds_units_that_overlap(pristine, tmp_path):
    wrong = replan(pristine.plan, 2, first_row=39)
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    assert verify(str(tmp_path / "output")).findings == (
        "unit 2 plans a.jsonl rows 39 to 58, expected from row 40",
        "unit 3 plans a.jsonl rows 60 to 61, expected from row 59",
    )


def numbered(*slices: tuple[Slice, ...]) -> list[Unit]:
    return [Unit(number=number, group=number, slices=several) for number, several in enumerate(slices)]


def test_finds_units_that_cannot_be_right(pristine):
    first, second, other = (pristine.plan.units[unit].slices[0] for unit in (4, 5, 6))
    asked = {**pristine.plan.requested, "input": {**pristine.plan.requested["input"], "limit": 44}}

    def faults(units: list[Unit]) -> list[str]:
        return unit_faults(document.build(asked, pristine.plan.resolved, pristine.plan.schema, units))

    assert faults(numbered((first,), (second,))) == []
    assert faults(numbered((first,), (second,), (other,))) == ["the plan has 45 rows, the job asked for the first 44"]
    assert faults(numbered((first, second))) == ["unit 0 plans two slices of one file"]
    assert faults(numbered((second,))) == ["unit 0 plans b.jsonl.gz rows 20 to 24, expected from row 0"]
    assert faults([replace(numbered((first,))[0], number=1)]) == ["the plan's unit at place 0 has number 1"]
    empty = replace(other, rows=0)
    apart = ["unit 2 plans b.jsonl.gz rows 20 to 24 apart from the rows before them"]
    assert faults(numbered((first,), (empty,), (second,))) == apart
