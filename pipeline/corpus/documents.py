"""The rows of one unit, gathered while its slices are read.

Nothing is dropped: each row of a slice ends in `Documents` once, as a row or as a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.corpus.rows import DeadRowError, RowRule
from pipeline.records import DeadLetter, Slice

MAX_REASON = 200
MAX_UNIT_BYTES = (1 << 31) - 1
"""Of texts, ids and kept values: what a column of strings can hold. Parquet makes as much from a small dictionary."""


class LargeUnitError(Exception):
    """Raised while rows are read that are too many for one unit; never leaves the read task."""


@dataclass(slots=True, kw_only=True)
class Documents:
    """The rows of one unit, column by column, and its dead letters.

    `slice_index` points into the unit's slices; `keep` holds one table a read, row-aligned with the rest
    when concatenated.
    """

    slice_index: list[int] = field(default_factory=list)
    source_row: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    keep: list[pa.Table] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def keep_columns(self, types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
        """Return the kept columns, each in one piece."""
        schema = pa.schema(list(types.items()))
        table = pa.concat_tables([schema.empty_table(), *self.keep]).combine_chunks()
        return {name: table.column(name).combine_chunks() for name in types}

    def truncate(self, rows: int, tables: int, dead: int) -> None:
        """Forget what was added after the given counts."""
        for column in (self.slice_index, self.source_row, self.texts, self.prompts, self.ids):
            del column[rows:]
        del self.keep[tables:]
        del self.dead[dead:]


class Collector:
    """Gathers the rows of one unit while its slices are read."""

    def __init__(self, rule: RowRule, keep: Mapping[str, pa.DataType]) -> None:
        self.rule = rule
        self.keep = dict(keep)
        self.documents = Documents()
        self._slice_index = self._bytes = 0
        self._mark = (0, 0, 0)

    def take(self) -> Documents:
        """Hand over what was gathered and start the next unit."""
        documents, self.documents, self._mark = self.documents, Documents(), (0, 0, 0)
        self._slice_index = self._bytes = 0
        return documents

    def next_slice(self) -> None:
        """Rows that follow belong to the unit's next slice."""
        self._slice_index += 1
        self._mark = (len(self.documents.texts), len(self.documents.keep), len(self.documents.dead))

    def bury_slice(self, piece: Slice, error: DeadRowError) -> None:
        """Set all rows of the current slice aside, also those already read."""
        self.documents.truncate(*self._mark)
        for row in range(piece.first_row, piece.first_row + piece.rows):
            self.bury(row, error)

    def add(self, row: int, record: Mapping[str, object]) -> bool:
        """Add one record; False where it became a dead letter."""
        try:
            text, prompt, row_id = self.rule.text(record), self.rule.prompt(record), self.rule.row_id(record)
        except DeadRowError as error:
            self.bury(row, error)
            return False
        documents = self.documents
        documents.slice_index.append(self._slice_index)
        documents.source_row.append(row)
        documents.texts.append(text)
        documents.prompts.append(prompt)
        documents.ids.append(row_id)
        self._weigh(len(text) + len(row_id or ""))
        return True

    def bury(self, row: int, error: DeadRowError) -> None:
        """Set a row aside."""
        self.documents.dead.append(
            DeadLetter(slice_index=self._slice_index, row=row, code=error.code, reason=error.reason[:MAX_REASON])
        )

    def add_keep(self, table: pa.Table) -> None:
        """Add the kept columns of the rows that were added since the last call."""
        self.documents.keep.append(table)
        self._weigh(table.nbytes)

    def _weigh(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes > MAX_UNIT_BYTES:
            raise LargeUnitError
