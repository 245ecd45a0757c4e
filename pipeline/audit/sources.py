"""Source files read again from their first byte, with the standard library and pyarrow alone.

Lines and records are counted here, so that wrong offsets in a plan are found out.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, assert_never

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.audit.csv_records import CsvRecords
from pipeline.audit.rows import Row, RowJudge, json_text
from pipeline.exceptions import ConfigError
from pipeline.records import DeadCode, Format, SourceFile
from pipeline.schema import declares_extensions, plain_type
from pipeline.storage import open_filesystem

CHUNK_ROWS = 1024
CHUNK_BYTES = 16 << 20
LINE_FACTOR = 4
"""A line or record of this many times `input.max_text_bytes` is dead without being parsed."""
READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException)
MAX_DEPTH = 500
"""A record nested deeper is dead."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some consecutive rows of a file, none at its end; of Parquet also the columns themselves."""

    rows: Sequence[Row]
    columns: pa.RecordBatch | None = None

    def kept(self, name: str, kind: pa.DataType, indexes: Sequence[int]) -> pa.Array:
        """Return a kept column of some of the rows as the output must hold it.

        Raises:
            pa.ArrowException: a value does not fit the type.
        """
        if self.columns is not None and name in self.columns.schema.names:
            column = self.columns.column(name)
            return column.cast(plain_type(column.type)).take(pa.array(indexes, pa.int64())).cast(kind)
        values = [row.get(name) for index in indexes if isinstance(row := self.rows[index], Mapping)]
        if pa.types.is_string(kind):
            return pa.array(map(json_text, values), kind)
        # text in a typed column is of CSV, where nothing is null, or a partition's: a line that held it would be dead
        values = [None if value == "" else value for value in values]
        typed = [pa.scalar(value).cast(kind).as_py() if isinstance(value, str) else value for value in values]
        found = pa.array(typed, kind)
        if pa.types.is_integer(kind) and found.to_pylist() != typed:
            raise pa.ArrowInvalid(f"a number that is no {kind}")
        return found


class SourceRows(Protocol):
    """A file being read forward."""

    def take(self, limit: int) -> Chunk:
        """Return the next rows, at most `limit` and at least one unless the file has ended."""


class InputFiles:
    """Where the input is now; `moved` where that is not where it was planned, so that times and ETags say nothing."""

    def __init__(self, uri: str, *, moved: bool) -> None:
        self._moved = moved
        self._fs, pattern = open_filesystem(uri)
        self._rooted = pattern.startswith("/")
        # what exists as it is written is no pattern
        if any(character in pattern for character in "*?[") and not self._fs.exists(pattern):
            self._folder = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
        elif self._fs.isfile(pattern):
            self._folder = pattern.rpartition("/")[0]
        elif self._fs.exists(pattern):
            self._folder = pattern
        else:
            raise ConfigError("input.uri", f"nothing is at {uri!r}; name where the input is now, or leave it unchecked")

    def size(self, path: str) -> int | None:
        """Return the size of a file, None where it is gone."""
        try:
            return int(self._fs.info(self._absolute(path))["size"])
        except FileNotFoundError:
            return None

    def rewritten(self, source: SourceFile) -> bool:
        """Tell whether a file is surely not the one that was planned, by its ETag or time."""
        if self._moved:
            return False
        info = self._fs.info(self._absolute(source.path))
        if info.get("ETag"):
            return bool(str(info["ETag"]).strip('"') != source.etag)
        return "ino" in info and str(Path(info["name"]).stat().st_mtime_ns) != source.etag

    @contextmanager
    def open(self, source: SourceFile, judge: RowJudge) -> Iterator[SourceRows]:
        """Open a file at its first row."""
        partitions = dict(source.partitions)
        with self._fs.open(self._absolute(source.path), "rb") as file:
            if source.format is Format.PARQUET:
                yield _ParquetRows(file, partitions, judge)
            elif source.format is Format.JSONL:
                yield _JsonLines(_decompressed(file, source.compression), partitions, judge.max_text_bytes)
            elif source.format is Format.CSV or source.format is Format.TSV:
                stream = _decompressed(file, source.compression)
                most = LINE_FACTOR * judge.max_text_bytes
                yield _CsvRows(CsvRecords(stream, source.format, judge.csv, partitions, most))
            else:
                assert_never(source.format)

    def _absolute(self, path: str) -> str:
        return f"{self._folder}/{path}" if self._folder or self._rooted else path


def _decompressed(file: Any, compression: str | None) -> io.BufferedIOBase:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)
    if compression == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"))
    return io.BufferedReader(file)


class _JsonLines:
    def __init__(self, stream: io.BufferedIOBase, partitions: Mapping[str, str | None], max_text_bytes: int) -> None:
        self._stream, self._partitions = stream, partitions
        self._max_line = LINE_FACTOR * max_text_bytes
        self._is_first = True

    def take(self, limit: int) -> Chunk:
        rows: list[Row] = []
        size = 0
        while len(rows) < limit and size < CHUNK_BYTES and (line := self._stream.readline(self._max_line + 1)):
            size += len(line)
            rows.append(self._row(line))
        return Chunk(rows=rows)

    def _row(self, line: bytes) -> Row:
        text = line.removeprefix(_BOM) if self._is_first else line
        self._is_first = False
        if len(line) > self._max_line and not line.endswith(b"\n"):
            while (rest := self._stream.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            return DeadCode.TOO_LARGE
        if not text.strip():
            return DeadCode.EMPTY
        try:
            record = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse)
        except UnicodeDecodeError:
            return DeadCode.BAD_UTF8
        except (ValueError, RecursionError):
            return DeadCode.BAD_JSON
        if not isinstance(record, dict) or (len(text) > MAX_DEPTH and _depth(record) > MAX_DEPTH):
            return DeadCode.BAD_JSON
        return {**self._partitions, **record}


class _CsvRows:
    def __init__(self, records: CsvRecords) -> None:
        self._records = iter(records)

    def take(self, limit: int) -> Chunk:
        rows: list[Row] = []
        size = 0
        while len(rows) < limit and size < CHUNK_BYTES and (record := next(self._records, None)):
            size += record[0]
            rows.append(record[1])
        return Chunk(rows=rows)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _depth(record: dict[str, Any]) -> int:
    depth = 0
    level: list[Any] = [record]
    while level:
        depth += 1
        inside = (child for part in level for child in (part.values() if isinstance(part, dict) else part))
        level = [child for child in inside if isinstance(child, dict | list)]
    return depth


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


class _ParquetRows:
    def __init__(self, file: Any, partitions: Mapping[str, str | None], judge: RowJudge) -> None:
        _refuse_extensions(file)
        parquet = pq.ParquetFile(file, page_checksum_verification=True, arrow_extensions_enabled=False)
        present = set(parquet.schema_arrow.names)
        self._judged = [name for name in judge.columns if name in present]
        wanted = [*self._judged, *(name for name in judge.kept if name in present and name not in self._judged)]
        self._batches = parquet.iter_batches(CHUNK_ROWS, columns=wanted, use_threads=False)
        self._partitions = partitions
        self._batch: pa.RecordBatch | None = None

    def take(self, limit: int) -> Chunk:
        while self._batch is None or self._batch.num_rows == 0:
            self._batch = next(self._batches, None)
            if self._batch is None:
                return Chunk(rows=[])
        batch, self._batch = self._batch.slice(0, limit), self._batch.slice(limit)
        columns = {name: _values(batch.column(name)) for name in self._judged}
        rows = [
            {**self._partitions, **{name: values[index] for name, values in columns.items()}}
            for index in range(batch.num_rows)
        ]
        return Chunk(rows=rows, columns=batch)


def _refuse_extensions(file: Any) -> None:
    """Look at the raw footer, as Arrow runs the code of extension types while it opens a file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 8, 0))
    footer = int.from_bytes(file.read(4), "little") + 8
    file.seek(max(size - footer, 0))
    if declares_extensions(file.read(footer)):
        raise pa.ArrowInvalid("it declares Arrow extension types")
    file.seek(0)


def _values(column: pa.Array) -> list[object]:
    """Return a column as Python values: strings decoded, those that cannot be as bytes."""
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    try:
        values: list[object] = plain.to_pylist()
    except UnicodeDecodeError:
        values = plain.cast(pa.large_binary()).to_pylist()
    return [_decoded(value) if isinstance(value, bytes) else value for value in values]


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
