"""Which rows stand for a plan: bounded, evenly spread, and all of them where they are few."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.sample import FEWEST_UNITS, MOST_ROWS, MOST_UNITS, sample_units
from pipeline.records import Format, Slice, SourceFile, Unit

SOURCE = SourceFile(path="a.jsonl", size=5, etag="e", format=Format.JSONL)


def units(*rows: int) -> list[Unit]:
    return [
        Unit(number=number, group=number, slices=(Slice(source=SOURCE, first_row=0, rows=count, size_bytes=9),))
        for number, count in enumerate(rows)
    ]


def chosen(*rows: int) -> list[tuple[int, int]]:
    return [(unit.number, count) for unit, count in sample_units(units(*rows))]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 70_000), max_size=600))
def test_it_is_bounded_and_never_more_than_is_there(rows):
    found = chosen(*rows)
    assert sum(count for _, count in found) <= MOST_ROWS + MOST_UNITS
    assert len(found) <= MOST_UNITS
    assert all(0 < count <= rows[number] for number, count in found)
    assert [number for number, _ in found] == sorted({number for number, _ in found})
    assert bool(found) == any(rows)


def test_all_rows_of_a_small_plan():
    assert chosen(25, 0, 3, 400) == [(0, 25), (2, 3), (3, 400)]
    assert chosen(*[2] * 256) == [(number, 2) for number in range(256)]


def test_a_part_of_the_rows_of_a_larger_one():
    assert chosen(25, 0, 3, 900) == [(0, 14), (2, 2), (3, 497)]
    assert sum(count for _, count in chosen(*[512] * 20)) == pytest.approx(20 * 512 / 8, abs=16)


@pytest.mark.parametrize(
    ("rows", "expected"), [([8192] * 1000, FEWEST_UNITS), ([100] * 1000, 41), ([1] * 100_000, MOST_UNITS)]
)
def test_units_of_all_parts_of_a_large_plan(rows, expected):
    found = chosen(*rows)
    assert len(found) == expected
    gaps = {later - earlier for (earlier, _), (later, _) in pairwise(found)}
    assert max(gaps) - min(gaps) <= 1
    assert found[-1][0] >= len(rows) - max(gaps)


def test_a_large_unit_gives_more_rows_than_a_small_one():
    assert chosen(100_000, 300_000) == [(0, 1024), (1, 3072)]
