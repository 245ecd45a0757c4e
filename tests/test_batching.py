"""Batches hold every text once, by length, within the budget, and depend on nothing but the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching import token_batches

lengths = st.lists(st.integers(0, 600), max_size=200).map(lambda drawn: np.array(drawn, np.int32))


@given(lengths=lengths, budget=st.integers(1, 2000))
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    batches = token_batches(lengths, budget)
    assert sorted(np.concatenate([*batches, np.array([], np.int64)]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(lengths=lengths, budget=st.integers(1, 2000))
def test_batches_go_from_long_to_short_and_keep_the_order_of_equals(lengths, budget):
    order = np.concatenate([*token_batches(lengths, budget), np.array([], np.int64)]).tolist()
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


@given(lengths=lengths, budget=st.integers(1, 2000))
def test_no_batch_could_take_the_next_text(lengths, budget):
    batches = token_batches(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(int(lengths[batch].max()), 1) > budget


def test_no_texts_give_no_batches():
    assert token_batches(np.array([], np.int32), 10) == []


def test_text_over_the_budget_is_a_batch_of_its_own():
    assert [batch.tolist() for batch in token_batches(np.array([3, 50, 3, 40], np.int32), 10)] == [[1], [3], [0, 2]]


@pytest.mark.parametrize("lengths", [[0, 0, 0], [2**31 - 1, 1]])
def test_extreme_lengths_do_not_overflow(lengths):
    batches = token_batches(np.array(lengths, np.int32), 2)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
