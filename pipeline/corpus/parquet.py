"""Parquet: only the needed columns are read, types are checked on the footer before any data.

Extension types are refused on the footer's raw bytes: registered ones run code of their own while Arrow opens
a file, long before a value is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import failpoints
from pipeline.corpus.documents import Collector
from pipeline.corpus.files import CorpusFiles, PinnedFile
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.corpus.rows import DeadRowError, partition_values
from pipeline.exceptions import SourceSchemaError
from pipeline.records import DeadCode, Slice, SourceFile
from pipeline.schema import declares_extensions, plain_type

BATCH_ROWS = 1024
MAX_FOOTER_BYTES = 256 << 20
MAX_ROWS = 1 << 32
"""Of one file; a footer costs nothing to write, the plan of its rows does."""
_MAGIC = b"PAR1"
_DECODE_ERRORS = (pa.ArrowException, OSError, ValueError)


class ParquetReader:
    """Reads selected columns of Parquet files."""

    def inspect(self, files: CorpusFiles, source: SourceFile, limits: CutLimits) -> Inspection:
        """Cut by rows; bytes are the footer's uncompressed sizes spread evenly over the rows.

        Reading can start at the first row of a row group.
        """
        with _opened(files, source) as (parquet, pinned):
            metadata = parquet.metadata
            columns = {field.name: field.type for field in parquet.schema_arrow}
            pinned.check()
        bounds = _row_group_bounds(metadata)
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        row_bytes = max(size // max(metadata.num_rows, 1), 1)
        rows = metadata.num_rows if limits.total_rows is None else min(metadata.num_rows, limits.total_rows)
        step = max(min(limits.rows, limits.size_bytes // row_bytes), 1)
        slices = [
            Slice(source=source, first_row=first, rows=count, size_bytes=count * row_bytes)
            for first in range(0, max(rows, 1), step)
            for count in [min(step, rows - first)]
        ]
        starts = {first for first, _ in bounds} | {0}
        return Inspection(columns=columns, slices=slices, enterable=[piece.first_row in starts for piece in slices])

    def read(self, files: CorpusFiles, slices: Iterator[Slice], collect: Collector) -> Iterator[Slice]:
        """Read consecutive slices of one file; see `Reader.read`."""
        first = next(slices)
        with _opened(files, first.source) as (parquet, pinned):
            cursor = _RowCursor(parquet, pinned, first, collect)
            for piece in chain([first], slices):
                cursor.read(piece)
                failpoints.hit("read.mid")
                pinned.check()
                yield piece


@contextmanager
def _opened(files: CorpusFiles, source: SourceFile) -> Iterator[tuple[pq.ParquetFile, PinnedFile]]:
    with files.open(source) as pinned:
        try:
            _refuse_extensions(source, pinned)
            # without this, columns of JSON and UUIDs would come as extension types of Arrow's own
            parquet = pq.ParquetFile(pinned.file, page_checksum_verification=True, arrow_extensions_enabled=False)
            _check_footer(source, parquet)
            yield parquet, pinned
        except _DECODE_ERRORS as error:
            raise pinned.blame(f"not readable as Parquet: {error}") from error


def _refuse_extensions(source: SourceFile, pinned: PinnedFile) -> None:
    file = pinned.file
    file.seek(-min(source.size, 8), os.SEEK_END)
    tail = file.read(8)
    if tail[4:] != _MAGIC:
        raise pinned.blame(f"not readable as Parquet: it ends in {tail[4:]!r}, not {_MAGIC!r}")
    size = int.from_bytes(tail[:4], "little")
    if size > min(MAX_FOOTER_BYTES, source.size - 8):
        raise pinned.blame(f"not readable as Parquet: a footer of {size} bytes in a file of {source.size}")
    file.seek(source.size - 8 - size)
    footer = file.read(size)
    if declares_extensions(footer):
        reason = "the file declares Arrow extension types, which may run code when read; write it without them"
        raise SourceSchemaError(source.path, "*", reason)
    file.seek(0)


def _check_footer(source: SourceFile, parquet: pq.ParquetFile) -> None:
    metadata = parquet.metadata
    rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        msg = f"the footer counts {metadata.num_rows} rows, its row groups {sum(rows)}"
        raise ValueError(msg)
    if metadata.num_rows > MAX_ROWS:
        msg = f"the footer declares {metadata.num_rows} rows; at most {MAX_ROWS} are taken from one file"
        raise ValueError(msg)
    for name, count in Counter(parquet.schema_arrow.names).items():
        if count > 1:
            raise SourceSchemaError(source.path, name, f"there are {count} columns of this name")


def _row_group_bounds(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    bounds, first = [], 0
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        bounds.append((first, first + rows))
        first += rows
    return bounds


class _RowCursor:
    """Streams a file's rows forward, from the row group that holds the first slice on."""

    def __init__(self, parquet: pq.ParquetFile, pinned: PinnedFile, first: Slice, collect: Collector) -> None:
        self._source, self._pinned, self._collect = first.source, pinned, collect
        self._partitions = dict(first.source.partitions)
        self._kept_partitions = partition_values(first.source, collect.keep)
        present = set(parquet.schema_arrow.names)
        wanted = [*collect.rule.text_columns, collect.rule.id_column, *collect.keep]
        names = [name for name in dict.fromkeys(wanted) if name in present]
        self._values = [name for name in names if name in collect.rule.text_columns or name == collect.rule.id_column]
        bounds = _row_group_bounds(parquet.metadata)
        groups = [index for index, (_, end) in enumerate(bounds) if end > first.first_row]
        self._row = bounds[groups[0]][0] if groups else first.first_row
        # never more rows at once than a unit has: that bounds their bytes, too
        size = min(BATCH_ROWS, max(first.rows, 1))
        self._batches = parquet.iter_batches(size, row_groups=groups, columns=names, use_threads=False)
        self._rest: pa.RecordBatch | None = None

    def read(self, piece: Slice) -> None:
        """Collect the rows of the next slice; slices come in order."""
        end = piece.first_row + piece.rows
        while self._row < end:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise self._pinned.blame(f"ends at row {self._row}, planned to {end}")
            skip = max(piece.first_row - self._row, 0)
            take = min(end - self._row, batch.num_rows)
            if take > skip:
                self._add(self._row + skip, batch.slice(skip, take - skip))
            self._rest = batch.slice(take) if take < batch.num_rows else None
            self._row += take

    def _add(self, first_row: int, batch: pa.RecordBatch) -> None:
        values = {name: _Column(batch.column(name)) for name in self._values}
        refused: dict[int, DeadRowError] = {}
        kept = pa.table(
            [self._kept(name, kind, batch, refused) for name, kind in self._collect.keep.items()],
            names=list(self._collect.keep),
        )
        added = []
        for index in range(batch.num_rows):
            try:
                if index in refused:
                    raise refused[index]
                record = {name: column.value(index) for name, column in values.items()}
            except DeadRowError as error:
                self._collect.bury(first_row + index, error)
                continue
            if self._collect.add(first_row + index, {**self._partitions, **record}):
                added.append(index)
        if kept.num_columns:
            self._collect.add_keep(kept.take(pa.array(added, pa.int64())))

    def _kept(self, name: str, kind: pa.DataType, batch: pa.RecordBatch, refused: dict[int, DeadRowError]) -> pa.Array:
        """Return a kept column; rows with a value that does not fit go to `refused` and are null."""
        if name not in batch.schema.names:
            return pa.array([self._kept_partitions.get(name)] * batch.num_rows, kind)
        column = batch.column(name)
        try:
            plain = column.cast(plain_type(column.type))
            with suppress(pa.ArrowInvalid):
                return _fitted(plain, kind)
            values = []
            for index in range(len(plain)):
                try:
                    values.append(_fitted(plain.take(pa.array([index])), kind))
                except pa.ArrowInvalid as error:
                    refused[index] = DeadRowError(DeadCode.BAD_VALUE, f"column {name!r} is not {kind}: {error}")
                    values.append(pa.nulls(1, kind))
            return pa.concat_arrays(values)
        except pa.ArrowNotImplementedError as error:
            raise SourceSchemaError(self._source.path, name, f"cannot become {kind}: {error}") from error


def _fitted(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast a column without loss; ArrowInvalid where a value does not fit."""
    fitted = column.cast(kind)
    # a cast passes on strings that are not UTF-8, and makes too large a number infinite
    fitted.validate(full=True)
    if pa.types.is_floating(kind) and pa.types.is_floating(column.type):
        grown = pc.and_not(pc.is_inf(fitted), pc.is_inf(column))
        if pc.any(grown).as_py():
            msg = "a number is too large"
            raise pa.ArrowInvalid(msg)
    return fitted


class _Column:
    """One column's values as Python objects, strings decoded one by one so that a bad one stays alone."""

    def __init__(self, column: pa.Array) -> None:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        self._text = plain_type(plain.type) in (pa.string(), pa.binary())
        self._array = plain.cast(pa.large_binary()) if self._text else plain

    def value(self, index: int) -> object:
        value = self._array[index].as_py()
        if not self._text or value is None:
            return value
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DeadRowError(DeadCode.BAD_UTF8, f"invalid UTF-8 at byte {error.start}") from None


def fits_text(kind: pa.DataType) -> bool:
    """Tell whether a column can be a text: strings, binary holding UTF-8, or nothing but nulls."""
    return plain_type(kind) in (pa.string(), pa.binary(), pa.null())


def fits_template(kind: pa.DataType) -> bool:
    """Tell whether a column can stand in a template."""
    return fits_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def fits_id(kind: pa.DataType) -> bool:
    """Tell whether a column can be an id: text or numbers."""
    return fits_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
