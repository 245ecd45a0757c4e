"""Parquet: only the needed columns are read, types are checked on the footer before any data.

Extension types are refused on the raw footer: registered ones run code of their own while a schema is read.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import failpoints
from pipeline.corpus.files import CorpusFiles, PinnedFile
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.corpus.rows import Collector, DeadRowError
from pipeline.exceptions import SourceReadError, SourceSchemaError
from pipeline.records import DeadCode, Slice, SourceFile
from pipeline.schema import plain_type

BATCH_ROWS = 1024
MAX_FOOTER_STRING = 64 << 20
MAX_FOOTER_ITEMS = 10_000_000
_FOOTER_ERRORS = (pa.ArrowException, OSError, ValueError)


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
            cursor = _RowCursor(parquet, first, collect)
            for piece in chain([first], slices):
                cursor.read(piece)
                failpoints.hit("read.mid")
                pinned.check()
                yield piece


@contextmanager
def _opened(files: CorpusFiles, source: SourceFile) -> Iterator[tuple[pq.ParquetFile, PinnedFile]]:
    with files.open(source) as pinned:
        try:
            metadata = pq.read_metadata(pinned.file)
            _refuse_extensions(source, metadata)
            pinned.file.seek(0)
            parquet = pq.ParquetFile(
                pinned.file,
                metadata=metadata,
                page_checksum_verification=True,
                thrift_string_size_limit=MAX_FOOTER_STRING,
                thrift_container_size_limit=MAX_FOOTER_ITEMS,
            )
            yield parquet, pinned
        except _FOOTER_ERRORS as error:
            raise SourceReadError(source.path, f"not readable as Parquet: {error}") from error


def _refuse_extensions(source: SourceFile, metadata: pq.FileMetaData) -> None:
    stored = (metadata.metadata or {}).get(b"ARROW:schema", b"")
    if b"ARROW:extension:name" in base64.b64decode(stored):
        reason = "the file declares Arrow extension types, which may run code when read; write it without them"
        raise SourceSchemaError(source.path, "*", reason)


def _row_group_bounds(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    bounds, first = [], 0
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        bounds.append((first, first + rows))
        first += rows
    return bounds


class _RowCursor:
    """Streams a file's rows forward, from the row group that holds the first slice on."""

    def __init__(self, parquet: pq.ParquetFile, first: Slice, collect: Collector) -> None:
        self._source, self._collect = first.source, collect
        self._partitions = dict(first.source.partitions)
        present = set(parquet.schema_arrow.names)
        wanted = [*collect.rule.text_columns, collect.rule.id_column, *collect.keep]
        names = [name for name in dict.fromkeys(wanted) if name in present]
        self._values = [name for name in names if name in collect.rule.text_columns or name == collect.rule.id_column]
        bounds = _row_group_bounds(parquet.metadata)
        groups = [index for index, (_, end) in enumerate(bounds) if end > first.first_row]
        self._row = bounds[groups[0]][0] if groups else first.first_row
        self._batches = parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)
        self._rest: pa.RecordBatch | None = None

    def read(self, piece: Slice) -> None:
        """Collect the rows of the next slice; slices come in order."""
        end = piece.first_row + piece.rows
        while self._row < end:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise SourceReadError(self._source.path, f"ends at row {self._row}, planned to {end}")
            skip = max(piece.first_row - self._row, 0)
            take = min(end - self._row, batch.num_rows)
            if take > skip:
                self._add(self._row + skip, batch.slice(skip, take - skip))
            self._rest = batch.slice(take) if take < batch.num_rows else None
            self._row += take

    def _add(self, first_row: int, batch: pa.RecordBatch) -> None:
        values = {name: _Column(batch.column(name)) for name in self._values}
        added = []
        for index in range(batch.num_rows):
            try:
                record = {name: column.value(index) for name, column in values.items()}
            except DeadRowError as error:
                self._collect.bury(first_row + index, error)
                continue
            if self._collect.add(first_row + index, {**self._partitions, **record}):
                added.append(index)
        self._collect.add_keep(self._kept(batch.take(pa.array(added, pa.int64()))))

    def _kept(self, batch: pa.RecordBatch) -> pa.Table:
        arrays = []
        for name, kind in self._collect.keep.items():
            if name in batch.schema.names:
                arrays.append(self._cast(name, batch.column(name), kind))
            else:
                arrays.append(pa.array([self._partitions.get(name)] * batch.num_rows, pa.string()).cast(kind))
        return pa.table(arrays, names=list(self._collect.keep))

    def _cast(self, name: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
        try:
            return column.cast(plain_type(column.type)).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SourceSchemaError(self._source.path, name, f"cannot become {kind}: {error}") from error


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
    """Tell whether a column can be a text: strings, or binary holding UTF-8."""
    return plain_type(kind) in (pa.string(), pa.binary())


def fits_template(kind: pa.DataType) -> bool:
    """Tell whether a column can stand in a template."""
    return fits_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def fits_id(kind: pa.DataType) -> bool:
    """Tell whether a column can be an id: text or integers."""
    return fits_text(kind) or pa.types.is_integer(kind)
