"""Relative position biases of T5 and MPNet, kept as one small table and never as a square per text.

The bias of a query and a key depends on their distance alone (Raffel et al. 2020, arXiv:1910.10683): a Toeplitz
matrix. With the keys in reverse order it is a Hankel matrix, which is a view of the table's rows: entry (i, j) lies
at i + j. So attention over reversed keys and values, whose order does not change its result, reads the table itself.
"""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import Tensor

WHOLE = 128
"""Tables are made for a multiple of so many tokens, so that kernels read them by whole blocks, without masks."""


class RelativeBias:
    """The biases of one model, for texts of up to `longest` tokens.

    `table` is float32 [heads, 2 * longest - 1]: query i and key j find theirs at i - j + longest - 1. `exponents` is
    the same times log2 e, for kernels that take powers of two.
    """

    def __init__(self, embedding: Tensor, longest: int, max_distance: int) -> None:
        """Tabulate `embedding`, float32 [buckets, heads], over all distances; `longest` is rounded up."""
        self.longest = -(-longest // WHOLE) * WHOLE
        distances = torch.arange(self.longest - 1, -self.longest, -1)  # of key from query, from behind a query's end
        self.table = embedding[_bucket(distances, len(embedding), max_distance)].T.contiguous()
        self.exponents = self.table / math.log(2)

    def to(self, device: torch.device) -> RelativeBias:
        """Return the same biases on a device."""
        moved = copy(self)
        moved.table, moved.exponents = self.table.to(device), self.exponents.to(device)
        return moved

    def for_reversed_keys(self, length: int) -> Tensor:
        """Return a view, float32 [1, heads, length, length]: queries by keys, the last key first."""
        heads, distances = self.table.shape
        shape, strides = (1, heads, length, length), (0, distances, 1, 1)
        return self.table.as_strided(shape, strides, self.longest - length)


def _bucket(distances: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Number the bucket of each distance, int64: half of them ahead of the query; exact when near, then logarithmic."""
    half = buckets // 2
    exact = half // 2
    far = distances.abs()
    # in float32 and in this order, as both references compute it: a rounding decides the bucket
    scaled = torch.log(far.float() / exact) / math.log(max_distance / exact) * (half - exact)
    logarithmic = (exact + scaled.clamp(min=0).long()).clamp(max=half - 1)
    return torch.where(far < exact, far, logarithmic) + half * (distances > 0)
