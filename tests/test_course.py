"""What a run remembers of its course is right, and does not grow with the run."""

from __future__ import annotations

import numpy as np
import pytest
from receipts import receipt, unit

from pipeline import token_lengths
from pipeline.course import SAMPLES, SLOWEST_UNITS, Course
from pipeline.records import BLOCKED, STARVED, Receipt


def test_lengths_are_counted_in_bins_whose_bounds_are_their_last_value():
    counts = token_lengths.count(np.array([1, 8, 8, 9, 12, 13, 131_073], np.int32))
    found = {(it.least, it.most): it.rows for it in token_lengths.bins(counts) if it.rows}
    assert found == {(0, 1): 1, (7, 8): 2, (9, 12): 2, (13, 16): 1, (131_073, None): 1}


def test_lengths_of_units_add_up_whichever_reach_further():
    short, long = token_lengths.count(np.array([3], np.int32)), token_lengths.count(np.array([3, 100], np.int32))
    total = token_lengths.add(token_lengths.add([], short), long)
    assert total == token_lengths.add(long, short) == token_lengths.count(np.array([3, 3, 100], np.int32))
    assert token_lengths.bins(token_lengths.count(np.array([], np.int32))) == []


@pytest.mark.parametrize("events", [1, 119, 120, 121, 5000])
def test_samples_stay_few_and_span_the_run(events):
    course = Course()
    for second in range(events):
        course.sample(float(second), 10 * second, 100 * second)
    course.sample(events + 0.5, 10 * events, 100 * events, last=True)
    seconds = [sample.seconds for sample in course.samples]
    assert SAMPLES / 2 < len(seconds) <= SAMPLES or events < SAMPLES
    assert (seconds[0], seconds[-1]) == (0.0, events + 0.5)
    assert seconds == sorted(seconds)
    assert course.samples[-1].tokens == 100 * events


def test_a_second_look_within_a_second_is_no_sample():
    course = Course()
    for second in (0.0, 0.4, 0.9, 1.1):
        course.sample(second, 1, 1)
    assert [sample.seconds for sample in course.samples] == [0.0, 1.1]


def test_counts_never_go_back():
    course = Course()
    for second, rows in enumerate((10, 50, 20, 60)):
        course.sample(float(second), rows, 2 * rows)
    assert [(sample.rows, sample.tokens) for sample in course.samples] == [(10, 20), (50, 100), (50, 100), (60, 120)]


def test_the_slowest_units_are_those_that_worked_longest_with_their_sources():
    course = Course()
    for number in range(50):
        kept = course.take(receipt(number, {"read": 1.0, "encode": number / 10, STARVED: 100.0 - number, BLOCKED: 9.0}))
        assert kept.effort is None
    slowest = course.slowest([unit(number, files=5) for number in range(50)])
    assert [found["unit"] for found in slowest] == list(range(49, 49 - SLOWEST_UNITS, -1))
    assert slowest[0]["seconds"] == 5.9
    assert slowest[0]["sources"] == [f"49-{name} rows 0 to 9" for name in range(3)]
    assert slowest[0]["sources_in_all"] == 5


def test_stages_and_batches_are_summed_over_units():
    course = Course()
    course.take(receipt(0, {"encode": 1.0, "read": 0.5}))
    course.take(receipt(1, {"encode": 2.0}, batch_tokens=10, batch_room=100))
    assert dict(course.stage_seconds) == {"encode": 3.0, "read": 0.5}
    assert course.batch_fill == 0.5


def test_a_receipt_read_from_its_shard_tells_nothing_of_its_making():
    course = Course()
    told = receipt(3, {"encode": 1.0})
    read = Receipt.from_json(told.to_json())
    assert read == told
    assert course.take(course.take(read)) == course.take(read)
    assert Course().batch_fill is None
