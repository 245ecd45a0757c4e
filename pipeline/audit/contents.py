"""Every row of an output against its source row, in one pass over each source file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audit.coding import Coding, stored_numbers
from pipeline.audit.findings import RowFaults
from pipeline.audit.rows import UNJUDGED, Judgement, RowJudge
from pipeline.audit.shards import ShardAudit
from pipeline.audit.sources import CHUNK_ROWS, READ_ERRORS, Chunk, InputFiles, SourceRows
from pipeline.audit.vectors import HASHING_TOLERANCE, hashing_vectors
from pipeline.fingerprint import content_digest
from pipeline.plan import Plan
from pipeline.records import DeadCode, Slice, SourceFile

MAX_SHOWN = 80


class InputAudit:
    """Takes the units of a sound plan in order and walks the source files beside them."""

    def __init__(self, plan: Plan, files: InputFiles, coding: Coding) -> None:
        self._plan, self._files, self._coding = plan, files, coding
        self._judge = RowJudge(plan)
        self._walk: _SourceWalk | None = None

    def compare(self, shard: ShardAudit) -> Iterator[str]:
        """Compare the next unit; yields the findings of each source file that ends with it."""
        start = 0
        for piece in shard.unit.slices:
            if self._walk is None or self._walk.source != piece.source:
                yield from self.close()
                self._walk = _SourceWalk(piece.source, self._files, self._judge, self._plan, self._coding)
            self._walk.compare(piece, start, shard)
            start += piece.rows

    def close(self) -> list[str]:
        """End the current source file; returns its findings."""
        walk, self._walk = self._walk, None
        return [] if walk is None else walk.close()


_REWRITTEN = (
    "was rewritten since it was planned; vectors may be of other texts than it holds now (name the input by --input "
    "where only its time changed, as in a copy)"
)


class _SourceWalk:
    """One source file and the parts of shards that were made from it.

    Its findings are held back to the end: where rows were set aside because the file changed, nothing can
    be demanded of it.
    """

    def __init__(self, source: SourceFile, files: InputFiles, judge: RowJudge, plan: Plan, coding: Coding) -> None:
        self.source = source
        self._judge, self._plan, self._coding = judge, plan, coding
        self._findings: list[str] = []
        self._mixed: list[str] = []
        self._given_up = False
        self._row = 0
        self._stack = ExitStack()
        self._rows: SourceRows | None = None
        self._open(files)

    def _open(self, files: InputFiles) -> None:
        try:
            size = files.size(self.source.path)
            if size is None:
                self._fail("is gone")
            elif size != self.source.size:
                self._fail(f"has {size} bytes, planned with {self.source.size}; its rows were not compared")
            else:
                if files.rewritten(self.source):
                    self._fail(_REWRITTEN)
                self._rows = self._stack.enter_context(files.open(self.source, self._judge))
        except READ_ERRORS as error:
            self._fail(f"cannot be read: {error}")

    def _fail(self, what: str) -> None:
        self._findings.append(f"source file {self.source.path}: {what}")
        self._rows = None

    def compare(self, piece: Slice, start: int, shard: ShardAudit) -> None:
        """Read the rows of a slice, which begin at place `start` of the unit, and compare them."""
        faults = RowFaults(shard.key)
        self._look_for_change(piece, start, shard)
        hashed = self._coding if self._plan.resolved["encoder"]["kind"] == "hashing" and self._coding.known else None
        comparison = _Comparison(shard, self._judge, hashed, faults)
        try:
            while self._rows is not None and self._row < piece.first_row + piece.rows:
                chunk = self._rows.take(min(piece.first_row + piece.rows - self._row, CHUNK_ROWS))
                if not chunk.rows:
                    self._fail(f"ends at row {self._row}, more are planned")
                elif shard.table is not None:
                    comparison.check(piece, self._row, start + self._row - piece.first_row, chunk)
                self._row += len(chunk.rows)
        except READ_ERRORS as error:
            self._fail(f"cannot be read: {error}")
        self._findings += faults.sentences()

    def _look_for_change(self, piece: Slice, start: int, shard: ShardAudit) -> None:
        letters = shard.dead_at[start : start + piece.rows]
        codes = shard.dead_codes or []
        changed = sum(codes[index] == DeadCode.SOURCE_CHANGED for index in letters if index >= 0)
        self._given_up |= changed > 0
        if 0 < changed < piece.rows:
            self._mixed.append(f"{shard.key}: {changed} of {piece} are set aside as changed, the others are not")

    def close(self) -> list[str]:
        """Check that the file ends where its planned rows do."""
        try:
            if self._rows is not None and not self._may_go_on() and self._rows.take(1).rows:
                self._fail(f"goes on after row {self._row - 1}, the last one planned")
        except READ_ERRORS as error:
            self._fail(f"cannot be read: {error}")
        self._stack.close()
        return self._mixed + ([] if self._given_up else self._findings)

    def _may_go_on(self) -> bool:
        """A trial ends within its last file."""
        limit = self._plan.requested["input"]["limit"]
        last = self._plan.units[-1].slices[-1].source
        return limit is not None and self._plan.rows == limit and self.source == last


class _Comparison:
    """Rows of one shard against chunks of its source; `hashed` where vectors can be computed from the texts."""

    def __init__(self, shard: ShardAudit, judge: RowJudge, hashed: Coding | None, faults: RowFaults) -> None:
        self._shard, self._judge, self._hashed, self._faults = shard, judge, hashed, faults

    def check(self, piece: Slice, first_row: int, place: int, chunk: Chunk) -> None:
        """Compare a chunk whose first row is `first_row` of the file and stands at `place` of the unit."""
        judgements = [self._judge.judge(row) for row in chunk.rows]
        names = [f"{piece.source.path} row {first_row + index}" for index in range(len(judgements))]
        embedded = self._shard.row_at[place : place + len(judgements)]
        self._check_dead(names, judgements, place)
        good = []
        for index in np.flatnonzero(embedded >= 0).tolist():
            codes = judgements[index].codes
            if codes:
                self._faults.add("embedded", f"{names[index]} is embedded, but its source is {'/'.join(sorted(codes))}")
            else:
                good.append(index)
        if good:
            self._check_rows([names[index] for index in good], [judgements[index] for index in good], embedded[good])
            self._check_kept(names, good, embedded[good], chunk)

    def _check_dead(self, names: Sequence[str], judgements: Sequence[Judgement], place: int) -> None:
        buried = self._shard.dead_at[place : place + len(judgements)]
        for index in np.flatnonzero(buried >= 0).tolist():
            code = (self._shard.dead_codes or [])[buried[index]]
            codes = judgements[index].codes
            if code not in codes and code not in UNJUDGED:
                instead = "/".join(sorted(codes)) if codes else "a row that can be embedded"
                self._faults.add(f"dead {code}", f"{names[index]} is dead as {code}, but its source is {instead}")

    def _check_rows(self, names: Sequence[str], judgements: Sequence[Judgement], at: npt.NDArray[np.int64]) -> None:
        table = self._shard.table
        if table is None:
            return
        for name, judgement, row_id in zip(names, judgements, table["id"].take(pa.array(at)).to_pylist(), strict=True):
            if row_id != judgement.row_id:
                self._faults.add("id", f"{name} has id {_shown(row_id)}, its source {_shown(judgement.row_id)}")
        if self._hashed is not None:
            vectors = hashing_vectors([judgement.text for judgement in judgements], self._hashed.dimension)
            wrong = self._hashed.differs(stored_numbers(table)[at], vectors, HASHING_TOLERANCE)
            for index in np.flatnonzero(wrong).tolist():
                self._faults.add("vector", f"{names[index]} has a vector that is not of its text")

    def _check_kept(self, names: Sequence[str], good: Sequence[int], at: npt.NDArray[np.int64], chunk: Chunk) -> None:
        table = self._shard.table
        if table is None:
            return
        for column, kind in self._judge.kept.items():
            here = table[column].take(pa.array(at))
            try:
                there = chunk.kept(column, kind, good)
            except (pa.ArrowException, OverflowError, TypeError, ValueError, RecursionError) as error:
                self._faults.add(f"kept {column}", f"{names[good[0]]} or later: {column} cannot be {kind}: {error}")
                continue
            if _digest(here) != _digest(there):
                index = _first_difference(here, there)
                values = f"{column} {_shown(here[index])}, its source {_shown(there[index])}"
                self._faults.add(f"kept {column}", f"{names[good[index]]} has {values}")


def _shown(value: object) -> str:
    """Quote a value, and not much of it: findings end up in logs."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _digest(column: pa.Array | pa.ChunkedArray) -> str:
    """Digest values and nulls: unlike ==, it takes NaN for equal to itself."""
    return content_digest(pa.table({"": column}))


def _first_difference(one: pa.ChunkedArray, other: pa.Array) -> int:
    same, different = 0, len(other)
    while different - same > 1:
        middle = (same + different) // 2
        if _digest(one[:middle]) == _digest(other[:middle]):
            same = middle
        else:
            different = middle
    return same
