"""Cut a file into slices by the ends of its rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.corpus.reader import CutLimits
from pipeline.records import Slice, SourceFile


class Cutter:
    """Finds slice boundaries among the ends of rows, without looking at single rows in Python."""

    def __init__(self, source: SourceFile, limits: CutLimits, start: int = 0) -> None:
        self._source, self._limits = source, limits
        self._slices: list[Slice] = []
        self._position = self._start = self._last_end = start
        self._row = self._rows = 0

    @property
    def done(self) -> bool:
        """Whether all rows that are wanted of this file were seen."""
        total = self._limits.total_rows
        return total is not None and self._row + self._rows >= total

    def feed(self, ends: npt.NDArray[np.int64], position: int) -> None:
        """Take the ends of the rows, int64 [n], that lie before `position` and were not fed yet."""
        self._position = position
        while len(ends) and not self.done:
            fit = int(np.searchsorted(ends, self._start + self._limits.size_bytes, side="right"))
            take = min(fit, self._room())
            if take == 0 and self._rows:
                self._close()
                continue
            take = max(take, 1)  # a row larger than a unit is a unit of its own
            self._rows += take
            self._last_end = int(ends[take - 1])
            ends = ends[take:]

    def finish(self) -> list[Slice]:
        """Return the slices; what follows the last end is a row, too."""
        if self._last_end < self._position and not self.done:
            if self._rows and (self._room() == 0 or self._position - self._start > self._limits.size_bytes):
                self._close()
            self._rows, self._last_end = self._rows + 1, self._position
        if self._rows or not self._slices:
            self._close()
        return self._slices

    def _room(self) -> int:
        """Return how many rows the open slice may still take."""
        total = self._limits.total_rows
        rows = self._limits.rows if total is None else min(self._limits.rows, total - self._row)
        return rows - self._rows

    def _close(self) -> None:
        self._slices.append(
            Slice(
                source=self._source,
                first_row=self._row,
                rows=self._rows,
                size_bytes=self._last_end - self._start,
                start=self._start,
                end=self._last_end,
            )
        )
        self._row, self._rows, self._start = self._row + self._rows, 0, self._last_end
