"""One contender on one cell: what it has shown so far, and whether its vectors are the model's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from benchmarks.speed.processes import ContenderError, Turn

CHECKED = 8
"""Texts whose vectors are compared."""
LEAST_COSINE = 0.98
MOST_APART = 0.5
"""Half-way to another text's vector: random weights put those close together, and a cosine hides that they moved."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One contender on one cell."""

    model: str
    mix: str
    label: str
    settings: str
    dtype: str | None
    texts: int
    tokens: int
    flops: int
    turns: list[Turn] = field(default_factory=list)
    cosine: float | None = None
    difference: float | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near vectors are to the reference's.

    `cosine` is the lowest of a text's two vectors, `difference` the largest of a number, `apart` the largest distance
    of a text's two vectors, in median distances between the reference's own.
    """

    cosine: float
    difference: float
    apart: float

    @property
    def fault(self) -> str | None:
        """Why they are not the model's vectors; what is not a number never is."""
        if not self.cosine >= LEAST_COSINE:
            return f"its vectors are not the model's: minimum cosine {self.cosine:.3f}"
        if not self.apart <= MOST_APART:
            return f"its vectors are not the model's: {self.apart:.2f} of the distance between texts"
        return None


def agreement(found: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compare vectors of a few texts, [n, width] each, n at least 2."""
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    between = np.linalg.norm(reference[:, None] - reference, axis=2)[np.triu_indices(len(reference), 1)]
    return Agreement(
        cosine=float(((found * reference).sum(1) / lengths).min()),
        difference=float(np.abs(found - reference).max()),
        apart=float(np.linalg.norm(found - reference, axis=1).max() / np.median(between)),
    )


class Attempt:
    """A contender on a cell; a failure ends it, never the run."""

    def __init__(self, row: Row, turn: Callable[[], Turn]) -> None:
        self.row, self._turn = row, turn

    def turn(self) -> None:
        """Take one turn."""
        if self.row.failed:
            return
        began = time.perf_counter()
        try:
            self.row.turns.append(self._turn())
        except ContenderError as error:
            self.row.failed = str(error)
        say(f"{self.row.model:16}{self.row.mix:20}{self.row.label:36}{time.perf_counter() - began:6.1f} s")

    def compare(self, vectors: Callable[[], np.ndarray], reference: np.ndarray) -> None:
        """Compare vectors of a few texts with the reference's; too far away is a failure."""
        if self.row.failed:
            return
        try:
            found = agreement(vectors(), reference)
        except ContenderError as error:
            self.row.failed = str(error)
            return
        self.row.cosine, self.row.difference, self.row.failed = found.cosine, found.difference, found.fault


def say(text: str) -> None:
    """Tell the person at the terminal what goes on."""
    print(text, file=sys.stderr, flush=True)
