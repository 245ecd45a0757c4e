"""Cut the texts of one unit into batches: a pure function of their lengths and the budget.

Never of timings, so that vectors do not depend on faults, scheduling or the number of nodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def token_batches(
    lengths: npt.NDArray[np.int32], max_tokens: int, *, equal: bool = False
) -> list[npt.NDArray[np.int64]]:
    """Group texts of similar length, or only of `equal` length, longest first, to at most `max_tokens` padded tokens.

    A text longer than the budget is a batch of its own. Returns row numbers, shape [texts in batch].
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    descending = -lengths[order]
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        count = max(max_tokens // longest, 1)
        if equal:
            count = min(count, int(np.searchsorted(descending, descending[start], side="right")) - start)
        batches.append(order[start : start + count])
        start += count
    return batches


def packed_batches(lengths: npt.NDArray[np.int32], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Group texts, longest first, to at most `max_tokens` tokens a batch, none of them padding.

    A text longer than the budget is a batch of its own. Returns row numbers, shape [texts in batch].
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    totals = np.cumsum(lengths[order], dtype=np.int64)
    batches = []
    start, done = 0, 0
    while start < len(order):
        end = max(int(np.searchsorted(totals, done + max_tokens, side="right")), start + 1)
        batches.append(order[start:end])
        start, done = end, int(totals[end - 1])
    return batches
