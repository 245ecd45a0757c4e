"""Codes by one rule a job: what they stand for, what they lose, and that nothing but the vector decides them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibration import STEPS, Calibration, calibrate, from_footer, from_json

PLAN_ID = "0123456789ab" * 4
KINDS = ("float16", "int8", "binary")


def vectors(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Unit vectors whose numbers have ranges of their own."""
    draw = np.random.default_rng(seed)
    found = draw.normal(draw.normal(size=width), draw.uniform(0.1, 2, width), (rows, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def rule(kind: str, sample: np.ndarray) -> Calibration:
    return calibrate(PLAN_ID, kind, sample.shape[1], [sample])


def test_int8_is_off_by_half_a_step_at_most():
    sample = vectors(500)
    made = rule("int8", sample)
    codes, clipped = made.encode(sample)
    assert codes.dtype == np.int8
    assert (np.abs(made.decode(codes) - sample) <= np.float32(made.scale) * 0.5001).all()
    assert clipped.sum() == 0
    assert (codes.max(axis=0) == STEPS).all()
    assert (codes.min(axis=0) == -STEPS).all()


def test_what_the_sample_did_not_reach_is_cut_and_counted():
    made = rule("int8", vectors(500))
    far = np.float32([made.offset, made.offset])
    far[0, :3] = [9, -9, 9]
    codes, clipped = made.encode(far)
    assert codes[0, :4].tolist() == [STEPS, -STEPS, STEPS, 0]
    assert clipped.tolist() == [3, 0]


def test_so_many_numbers_are_cut_as_a_sample_of_its_size_must_miss():
    rows = vectors(40_000, seed=3)
    _, clipped = rule("int8", rows[:1000]).encode(rows[1000:])
    assert clipped.mean() / rows.shape[1] == pytest.approx(2 / 1001, rel=0.25)


def test_binary_holds_signs_with_the_first_number_in_the_highest_bit():
    sample = np.float32([[1, -1, -1, -1, -1, -1, 0, 1, -1, 1, -1, -1, -1, -1, -1, -1]])
    codes, clipped = rule("binary", sample).encode(sample)
    assert codes.tolist() == [[0b10000001, 0b01000000]]
    assert codes.dtype == np.uint8
    assert clipped.tolist() == [0]
    decoded = rule("binary", sample).decode(codes)
    assert decoded.tolist() == [[0.25 if number > 0 else -0.25 for number in sample[0]]]


def test_float16_does_not_overflow():
    sample = np.float32([[1e9, 1.0], [0.1, -1e9]])
    codes, clipped = rule("float16", sample).encode(sample)
    assert codes.tolist() == [[65504, 1], [pytest.approx(0.1, rel=1e-3), -65504]]
    assert clipped.tolist() == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_has_its_code_in_any_company(kind):
    made, rows = rule(kind, vectors(300)), vectors(64, seed=1)
    together, _ = made.encode(rows)
    assert np.array_equal(np.concatenate([made.encode(rows[row : row + 1])[0] for row in range(64)]), together)
    assert np.array_equal(made.encode(rows[::-1])[0], together[::-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_footer_alone_decodes(kind):
    made = rule(kind, vectors(300))
    footer = {"plan_id": PLAN_ID, "dimension": "16", **made.description()}
    codes, _ = made.encode(vectors(5, seed=2))
    assert np.array_equal(from_footer(footer).decode(codes), made.decode(codes))
    assert footer["calibration"] == made.digest


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_its_bytes(kind):
    made = rule(kind, vectors(300))
    assert from_json(made.to_json()) == made


def test_ranges_are_float32_numbers_in_their_shortest_form():
    made = rule("int8", vectors(300))
    for values in (made.scale, made.offset):
        assert values == tuple(float(str(np.float32(value))) for value in values)


@pytest.mark.parametrize("change", [{"recall_at_10": 0.5}, {"scale": (0.5,) * 16}, {"sample_rows": 7}])
def test_another_calibration_has_another_digest(change):
    made = rule("int8", vectors(300))
    assert replace(made, **change).digest != made.digest


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}', rule("int8", vectors(9)).to_json() + b"\n"],
)
def test_what_is_no_calibration_is_refused(data):
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        from_json(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_sample_of_hardly_anything_still_gives_a_rule(kind, rows):
    made = rule(kind, vectors(rows))
    codes, _ = made.encode(vectors(50, seed=5))
    assert np.isfinite(made.decode(codes)).all()
    assert (made.recall_at_10 is None) == (rows < 2)
    assert json.loads(made.to_json())["sample_rows"] == rows


def test_numbers_of_one_value_do_not_divide_by_zero():
    sample = vectors(100)
    sample[:, 3] = 0.5
    made = rule("int8", sample)
    codes, clipped = made.encode(sample)
    assert made.decode(codes)[:, 3] == pytest.approx(0.5)
    assert clipped.sum() == 0


def test_recall_falls_with_the_bits():
    sample = vectors(2000, width=64)
    recalls = [rule(kind, sample).recall_at_10 for kind in KINDS]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[0] > 0.98
    assert recalls[1] > 0.9
    assert 0.05 < recalls[2] < 0.8


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-4, 4, width=32), min_size=8, max_size=8), min_size=2, max_size=30))
def test_no_vectors_give_codes_out_of_range(numbers):
    sample = np.float32(numbers)
    made = rule("int8", sample)
    codes, clipped = made.encode(sample)
    assert codes.min() >= -STEPS
    assert clipped.sum() == 0
    assert np.isfinite(made.decode(codes)).all()
