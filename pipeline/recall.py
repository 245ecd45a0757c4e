"""How many of the true nearest neighbours a search over other vectors of the same rows finds.

Scores are computed in blocks of rows, so that memory is bounded by one block against all rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 10
QUERIES = 1024
BLOCK = 128

Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]


def recall_at_10(vectors: Matrix, queries: Matrix, documents: Matrix) -> float | None:
    """Compare the ten nearest rows to rows of `vectors` with those that `queries` finds among `documents`.

    Nearest is by inner product, never a row itself, and of equals the first. Rows ask in turn, at most `QUERIES`,
    evenly spread.

    Args:
        vectors: float32 [rows, width], whose neighbours are the true ones.
        queries: float32 [rows, any], the same rows as they are asked for.
        documents: float32 [rows, any], the same rows as they are stored.

    Returns:
        The share of true neighbours found; None where there are no two rows.
    """
    count = min(NEIGHBOURS, len(vectors) - 1)
    if count < 1:
        return None
    asked = np.unique(np.linspace(0, len(vectors) - 1, min(QUERIES, len(vectors))).round().astype(np.intp))
    found = 0
    for start in range(0, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        true = _nearest(vectors[block] @ vectors.T, block, count)
        here = _nearest(queries[block] @ documents.T, block, count)
        found += int((true[:, :, None] == here[:, None, :]).sum())
    return found / (count * len(asked))


def _nearest(scores: Matrix, block: Rows, count: int) -> Rows:
    scores[np.arange(len(block)), block] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
