"""Recall against a search written down plainly."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import recall
from pipeline.recall import recall_at_10


def matrix(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32)


def plain_recall(true: np.ndarray, queries: np.ndarray, documents: np.ndarray) -> float:
    def nearest(row: int, asked: np.ndarray, stored: np.ndarray) -> set[int]:
        scores = [(-float(asked[row] @ stored[other]), other) for other in range(len(stored)) if other != row]
        return {other for _, other in sorted(scores)[:10]}

    rows = range(len(true))
    shares = [len(nearest(row, true, true) & nearest(row, queries, documents)) / 10 for row in rows]
    return float(np.mean(shares))


def test_it_is_what_a_plain_search_gives(monkeypatch):
    monkeypatch.setattr(recall, "BLOCK", 7)
    true, queries, documents = matrix(60, 0), matrix(60, 1), matrix(60, 2)
    assert recall_at_10(true, queries, documents) == pytest.approx(plain_recall(true, queries, documents))


def test_the_same_vectors_find_everything():
    assert recall_at_10(matrix(300, 0), matrix(300, 0), matrix(300, 0)) == 1.0


def test_of_equals_the_first_are_taken():
    rows = matrix(40, 0)
    same = np.ones((40, 1), np.float32)
    assert recall_at_10(rows, same, same) == pytest.approx(plain_recall(rows, same, same))


@pytest.mark.parametrize(("rows", "expected"), [(0, None), (1, None), (2, 1.0), (5, 1.0)])
def test_few_rows_have_few_neighbours(rows, expected):
    assert recall_at_10(matrix(rows, 0), matrix(rows, 1), matrix(rows, 2)) == expected


def test_it_asks_for_rows_of_all_parts(monkeypatch):
    monkeypatch.setattr(recall, "QUERIES", 10)
    true, other = matrix(400, 0), matrix(400, 0)
    other[200:] = matrix(200, 5)
    assert 0.1 < recall_at_10(true, other, other) < 0.4  # half of half of them, of the last rows hardly any
