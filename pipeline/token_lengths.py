"""How many rows have how many tokens, in bins that are the same for every unit, so that counts of units add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BOUNDS = tuple(sorted({1, *(2**power for power in range(1, 18)), *(3 * 2**power for power in range(16))}))
"""The most tokens in a row of each bin, two bins an octave; a last bin holds what is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Rows with `least` to `most` tokens; None where there is no upper bound."""

    least: int
    most: int | None
    rows: int


def count(n_tokens: npt.NDArray[np.int32]) -> list[int]:
    """Count rows by bin, up to the last bin that has any."""
    counts = np.bincount(np.searchsorted(BOUNDS, n_tokens)) if len(n_tokens) else np.zeros(0, np.int64)
    return [int(rows) for rows in counts]


def add(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Add counts up."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [rows + more for rows, more in zip(longer, [*shorter, *[0] * (len(longer) - len(shorter))], strict=True)]


def bins(counts: Sequence[int]) -> list[Bin]:
    """Name the bins of counts, from the first to the last that has rows."""
    least = [0, *(bound + 1 for bound in BOUNDS)]
    most = [*BOUNDS, None]
    named = [Bin(least=low, most=high, rows=rows) for low, high, rows in zip(least, most, counts, strict=False)]
    first = next((number for number, it in enumerate(named) if it.rows), len(named))
    return named[first:]
