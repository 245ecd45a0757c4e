"""Batches hold every text once, by length, within the budget, and depend on nothing but the lengths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encoders.forward.batching import packed_batches, token_batches

lengths = st.lists(st.integers(0, 600), max_size=200).map(lambda drawn: np.array(drawn, np.int32))
budgets = st.integers(1, 2000)


def padded(lengths: np.ndarray) -> int:
    """Tokens of a batch whose texts are all filled up to the longest."""
    return len(lengths) * int(lengths.max(initial=1))


def packed(lengths: np.ndarray) -> int:
    """Tokens of a batch without padding."""
    return int(lengths.sum(dtype=np.int64))


kinds = pytest.mark.parametrize(
    ("cut", "cost"), [(token_batches, padded), (packed_batches, packed)], ids=["padded", "packed"]
)


@kinds
@given(lengths=lengths, budget=budgets)
def test_batches_hold_every_text_once_from_long_to_short(cut, cost, lengths, budget):
    order = [row for batch in cut(lengths, budget) for row in batch.tolist()]
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


@kinds
@given(lengths=lengths, budget=budgets)
def test_batch_of_several_texts_is_within_the_budget(cut, cost, lengths, budget):
    assert all(len(batch) == 1 or cost(lengths[batch]) <= budget for batch in cut(lengths, budget))


@kinds
@given(lengths=lengths, budget=budgets)
def test_no_batch_could_take_the_next_text(cut, cost, lengths, budget):
    batches = cut(lengths, budget)
    for batch, following in pairwise(batches):
        assert cost(lengths[[*batch, following[0]]]) > budget


@kinds
def test_no_texts_give_no_batches(cut, cost):
    assert cut(np.array([], np.int32), 10) == []


@pytest.mark.parametrize(
    ("cut", "batches"), [(token_batches, [[1], [3], [4, 0], [2]]), (packed_batches, [[1], [3], [4, 0, 2]])]
)
def test_text_over_the_budget_is_a_batch_of_its_own(cut, batches):
    assert [batch.tolist() for batch in cut(np.array([4, 50, 1, 40, 5], np.int32), 10)] == batches


def test_batches_of_equal_lengths_hold_no_padding():
    batches = token_batches(np.array([4, 7, 4, 7, 4, 1], np.int32), 8, equal=True)
    assert [batch.tolist() for batch in batches] == [[1], [3], [0, 2], [4], [5]]


@kinds
@pytest.mark.parametrize("lengths", [[0, 0, 0], [2**31 - 1, 2**31 - 1, 1]])
def test_extreme_lengths_do_not_overflow(cut, cost, lengths):
    batches = cut(np.array(lengths, np.int32), 2)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
