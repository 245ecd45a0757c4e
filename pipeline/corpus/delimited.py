"""CSV and TSV, plain, gzip or zstd: a header that names the columns, then a row a record.

A row's ordinal counts the records after the header, blank lines among them; a record in quotes may have many lines.
Records are taken apart one by one: a malformed one becomes a dead letter and its neighbours are read.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, pairwise
from math import isfinite

import pyarrow as pa

from pipeline import failpoints
from pipeline.config import CsvConfig
from pipeline.corpus.cutting import Cutter
from pipeline.corpus.dialect import Dialect, RecordEnds
from pipeline.corpus.documents import Collector
from pipeline.corpus.files import CorpusFiles
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.corpus.rows import DeadRowError, partition_values
from pipeline.corpus.streams import BLOCK_BYTES, BOM, decompressed
from pipeline.exceptions import SourceSchemaError
from pipeline.records import DeadCode, Slice, SourceFile

RECORD_OVERHEAD = 4
"""A record may be this many times the largest text: doubled quotes and other columns."""
MAX_HEADER_BYTES = 1 << 20
SAMPLE_ROWS = 100


class DelimitedReader:
    """Reads one row a record."""

    def __init__(self, config: CsvConfig) -> None:
        self._config = config

    def inspect(self, files: CorpusFiles, source: SourceFile, limits: CutLimits) -> Inspection:
        """Find the records once and cut after every `limits.rows` of them or `limits.size_bytes` bytes.

        Plain files can be entered at any record, compressed ones only at their beginning.

        Raises:
            SourceSchemaError: the header does not name each column once, or no record has as many fields.
            SourceReadError: a quote is never closed, and would take all lines after it for one record.
        """
        with decompressed(files, source) as (stream, pinned):
            names, start = self._columns(stream, source)
            stream.seek(start)
            cutter, records = Cutter(source, limits, start), RecordEnds(self._dialect(source), start)
            block = more = stream.read(BLOCK_BYTES)
            ends = records.feed(block)
            _check_width(source, len(names), self._dialect(source), block, (ends - start).tolist())
            while more and not cutter.done:
                block = more
                cutter.feed(ends, records.position)
                more = stream.read(BLOCK_BYTES)
                ends = records.feed(more)
            lines = records.lines + (not block.endswith(b"\n"))
            swallowed = lines if records.has_open_quote and not cutter.done else 0
            slices = cutter.finish()
            if swallowed > 1:
                row = f"row {slices[-1].first_row + slices[-1].rows - 1}, from byte {records.start} on,"
                reason = f"{row} opens a quote that is never closed and takes {swallowed} lines"
                raise pinned.blame(f"{reason}; close it, or set input.csv.quoting to none where quotes are text")
            pinned.check()
        enterable = [source.compression is None or index == 0 for index in range(len(slices))]
        return Inspection(columns=dict.fromkeys(names, pa.string()), slices=slices, enterable=enterable)

    def read(self, files: CorpusFiles, slices: Iterator[Slice], collect: Collector) -> Iterator[Slice]:
        """Read consecutive slices of one file; see `Reader.read`."""
        first = next(slices)
        dialect = self._dialect(first.source)
        max_record = RECORD_OVERHEAD * collect.rule.max_text_bytes
        with decompressed(files, first.source) as (stream, pinned):
            names, _ = self._columns(stream, first.source)
            rows = _Rows(first.source, names, dialect, collect)
            for piece in chain([first], slices):
                stream.seek(piece.start)
                row = piece.first_row
                for records in _records(stream, piece, dialect, max_record):
                    rows.add(row, records)
                    row += len(records)
                if row != piece.first_row + piece.rows:
                    raise pinned.blame(f"{piece} are {row - piece.first_row} records, planned {piece.rows}")
                failpoints.hit("read.mid")
                pinned.check()
                yield piece

    def _dialect(self, source: SourceFile) -> Dialect:
        return Dialect.of(self._config, source.format)

    def _columns(self, stream: io.BufferedIOBase, source: SourceFile) -> tuple[list[str], int]:
        """Return the names of the columns, none for an empty file, and where the first row begins."""
        start = len(BOM) if stream.read(len(BOM)) == BOM else 0
        header = self._config.header
        if isinstance(header, tuple):
            return list(header), start
        stream.seek(start)
        dialect = self._dialect(source)
        record = _first_record(stream, source, RecordEnds(dialect, start))
        if not record:
            return [], start
        try:
            names = dialect.fields(record)
        except DeadRowError as error:
            raise SourceSchemaError(source.path, "*", f"its first record names no columns: {error.reason}") from None
        if not header:
            return [f"column{number}" for number in range(1, len(names) + 1)], start
        _check_names(source, names)
        return names, start + len(record)


def _first_record(stream: io.BufferedIOBase, source: SourceFile, ends: RecordEnds) -> bytes:
    start = ends.position
    data = stream.read(MAX_HEADER_BYTES + 1)
    for end in ends.feed(data).tolist():
        return data[: end - start]
    if len(data) > MAX_HEADER_BYTES:
        reason = f"its first record, which should name the columns, is longer than {MAX_HEADER_BYTES} bytes"
        raise SourceSchemaError(source.path, "*", reason)
    return data


def _check_names(source: SourceFile, names: list[str]) -> None:
    for name, count in Counter(names).items():
        if not name.strip():
            place = names.index(name) + 1
            reason = (
                f"the header gives column {place} no name (pandas writes its index so, unless index=False); name it"
            )
            raise SourceSchemaError(source.path, name, reason)
        if count > 1:
            raise SourceSchemaError(source.path, name, f"there are {count} columns of this name")


def _check_width(source: SourceFile, width: int, dialect: Dialect, block: bytes, ends: list[int]) -> None:
    """Refuse a file none of whose first records fits the columns: it is written in another way than the job says."""
    found = set()
    for start, end in pairwise([0, *ends[:SAMPLE_ROWS]]):
        with suppress(DeadRowError):
            found.add(len(dialect.fields(block[start:end])))
    if len(ends) >= SAMPLE_ROWS and found and width not in found:
        reason = f"there are {width} columns, but none of the first {SAMPLE_ROWS} records has {width} fields"
        raise SourceSchemaError(
            source.path, "*", f"{reason} (one has {min(found)}); say in input.csv how it is written"
        )


def _records(
    stream: io.BufferedIOBase, piece: Slice, dialect: Dialect, max_record: int
) -> Iterator[list[bytes | DeadRowError]]:
    """Yield the records of a slice, those that end in a block together; of too large ones only that they are."""
    ends = RecordEnds(dialect, piece.start)
    held, size = bytearray(), 0
    while ends.position < piece.end:
        first = ends.position
        block = stream.read(min(BLOCK_BYTES, piece.end - first))
        if not block:
            msg = "it ends before the last row that is planned"
            raise EOFError(msg)
        places = (ends.feed(block) - first).tolist()
        if ends.position == piece.end and places[-1:] != [len(block)]:
            places.append(len(block))  # the file's last record may have no line end
        records: list[bytes | DeadRowError] = []
        start = 0
        for end in places:
            size += end - start
            if size <= max_record:
                records.append(bytes(held) + block[start:end] if held else block[start:end])
            else:
                records.append(_too_large(size, max_record, dialect))
            held, size, start = bytearray(), 0, end
        size += len(block) - start
        held = held + block[start:] if size <= max_record else bytearray()
        yield records


def _too_large(size: int, most: int, dialect: Dialect) -> DeadRowError:
    hint = "; is a quote left open?" if dialect.quoted else ""
    return DeadRowError(DeadCode.TOO_LARGE, f"a record of {size} bytes; at most {most} are read{hint}")


class _Rows:
    """Makes rows of a file's records."""

    def __init__(self, source: SourceFile, names: list[str], dialect: Dialect, collect: Collector) -> None:
        self._dialect, self._collect, self._width = dialect, collect, len(names)
        self._partitions = dict(source.partitions)
        self._kept_partitions = partition_values(source, collect.keep)
        self._places = {name: place for place, name in enumerate(names)}
        used = {*collect.rule.text_columns, collect.rule.id_column}
        self._used = [(name, place) for name, place in self._places.items() if name in used]

    def add(self, first_row: int, records: list[bytes | DeadRowError]) -> None:
        """Collect consecutive records, each as a row or a dead letter."""
        parsed = [self._fields(record) for record in records]
        kept = [self._kept(name, kind, parsed) for name, kind in self._collect.keep.items()]
        added = []
        for index, fields in enumerate(parsed):
            if isinstance(fields, DeadRowError):
                self._collect.bury(first_row + index, fields)
            elif self._collect.add(
                first_row + index, {**self._partitions, **{name: fields[place] for name, place in self._used}}
            ):
                added.append(index)
        if kept:
            arrays = [
                pa.array([column[index] for index in added], kind)
                for column, kind in zip(kept, self._collect.keep.values(), strict=True)
            ]
            self._collect.add_keep(pa.table(arrays, names=list(self._collect.keep)))

    def _fields(self, record: bytes | DeadRowError) -> list[str] | DeadRowError:
        if isinstance(record, DeadRowError):
            return record
        try:
            fields = self._dialect.fields(record)
        except DeadRowError as error:
            return error
        if len(fields) == self._width:
            return fields
        lines = record.removesuffix(b"\n").count(b"\n") + 1
        reason = f"{len(fields)} fields, but {self._width} columns"
        return DeadRowError(DeadCode.BAD_CSV, reason if lines == 1 else f"{reason}; the record has {lines} lines")

    def _kept(self, name: str, kind: pa.DataType, parsed: list[list[str] | DeadRowError]) -> list[object]:
        """Return a kept column's values, None for a dead row; a row whose value does not fit becomes one."""
        place = self._places.get(name)
        if place is None:
            return [self._kept_partitions.get(name)] * len(parsed)
        texts = [None if isinstance(fields, DeadRowError) else fields[place] for fields in parsed]
        if pa.types.is_string(kind):
            return list(texts)
        values = _typed(texts, kind)
        for index, value in enumerate(values):
            if isinstance(value, Exception):
                reason = f"column {name!r} is not {kind}: {value}"
                parsed[index] = DeadRowError(DeadCode.BAD_VALUE, reason)
        return values


def _typed(texts: list[str | None], kind: pa.DataType) -> list[object]:
    """Return texts as values of a type, empty ones as null, and errors where they do not fit."""
    try:
        values: list[object] = pa.array([text or None for text in texts], pa.string()).cast(kind).to_pylist()
    except pa.ArrowException as error:
        if len(texts) == 1:
            return [error]
        return list(chain.from_iterable(_typed([text], kind) for text in texts))
    # Arrow takes a number that is too large, and words for it, as infinite
    return [
        ValueError(repr(text)) if isinstance(value, float) and not isfinite(value) else value
        for text, value in zip(texts, values, strict=True)
    ]
