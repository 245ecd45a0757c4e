"""JSON Lines, plain, gzip or zstd. Every line is a row, so that its ordinal is its line number.

Lines are decoded one by one: a broken line becomes a dead letter and its neighbours are read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from math import isfinite
from typing import NoReturn

import numpy as np
import pyarrow as pa

from pipeline import failpoints
from pipeline.corpus.cutting import Cutter
from pipeline.corpus.documents import Collector
from pipeline.corpus.files import CorpusFiles
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.corpus.rows import DeadRowError, check_unicode, json_text, partition_values
from pipeline.corpus.streams import BLOCK_BYTES, BOM, decompressed
from pipeline.records import DeadCode, Slice, SourceFile

SAMPLE_ROWS = 100
LINE_OVERHEAD = 4
"""A line may be this many times the largest text: escapes and other columns."""
MAX_DEPTH = 500
"""Nesting of a record; what Python's parser takes beyond it depends on how deep its caller is nested."""


class JsonLinesReader:
    """Reads one JSON object a line."""

    def inspect(self, files: CorpusFiles, source: SourceFile, limits: CutLimits) -> Inspection:
        """Count the lines once and cut after every `limits.rows` lines or `limits.size_bytes` bytes.

        Plain lines can be entered anywhere, compressed ones only at the beginning of the file.
        """
        with decompressed(files, source) as (stream, pinned):
            cutter = Cutter(source, limits)
            position = 0
            block = stream.read(BLOCK_BYTES)
            columns = _keys(block)
            while block and not cutter.done:
                ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position + 1
                position += len(block)
                cutter.feed(ends, position)
                block = stream.read(BLOCK_BYTES)
            slices = cutter.finish()
            pinned.check()
        enterable = [source.compression is None or index == 0 for index in range(len(slices))]
        return Inspection(columns=columns, slices=slices, enterable=enterable)

    def read(self, files: CorpusFiles, slices: Iterator[Slice], collect: Collector) -> Iterator[Slice]:
        """Read consecutive slices of one file; see `Reader.read`."""
        first = next(slices)
        max_line = LINE_OVERHEAD * collect.rule.max_text_bytes
        partitions = partition_values(first.source, collect.keep)
        with decompressed(files, first.source) as (stream, pinned):
            for piece in chain([first], slices):
                stream.seek(piece.start)
                _read_slice(stream, piece, collect, partitions, max_line)
                if stream.tell() != piece.end:
                    raise pinned.blame(f"{piece} end at byte {stream.tell()}, planned {piece.end}")
                failpoints.hit("read.mid")
                pinned.check()
                yield piece


def _keys(block: bytes) -> dict[str, pa.DataType | None]:
    """Return the keys of the first rows, so that a wrong column name is caught before the run."""
    keys: dict[str, pa.DataType | None] = {}
    for line in block.removeprefix(BOM).split(b"\n", SAMPLE_ROWS)[:SAMPLE_ROWS]:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            keys |= dict.fromkeys(record if isinstance(record, dict) else ())
    return keys


def _read_slice(
    stream: io.BufferedIOBase, piece: Slice, collect: Collector, partitions: Mapping[str, object], max_line: int
) -> None:
    kept: dict[str, list[object]] = {name: [] for name in collect.keep}
    texts = dict(piece.source.partitions)
    for row in range(piece.first_row, piece.first_row + piece.rows):
        try:
            line = _read_line(stream, max_line)
            record = _parse(line.removeprefix(BOM) if row == 0 else line)
            values = {
                name: _keep_value(name, record[name], kind) if name in record else partitions.get(name)
                for name, kind in collect.keep.items()
            }
        except DeadRowError as error:
            collect.bury(row, error)
            continue
        if collect.add(row, {**texts, **record}):
            for name, value in values.items():
                kept[name].append(value)
    arrays = [pa.array(kept[name], type=kind) for name, kind in collect.keep.items()]
    collect.add_keep(pa.table(arrays, names=list(collect.keep)))


def _read_line(stream: io.BufferedIOBase, max_line: int) -> bytes:
    line = stream.readline(max_line + 1)
    if not line:
        msg = "it ends before the last row that is planned"
        raise EOFError(msg)
    if len(line) <= max_line or line.endswith(b"\n"):
        return line
    size = len(line)
    while rest := stream.readline(BLOCK_BYTES):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    raise DeadRowError(DeadCode.TOO_LARGE, f"a line of {size} bytes; at most {max_line} are read")


def _parse(line: bytes) -> Mapping[str, object]:
    if not line.strip():
        raise DeadRowError(DeadCode.EMPTY, "the line is blank")
    try:
        record = json.loads(line.rstrip(b"\r\n").decode(), object_pairs_hook=_unique, parse_constant=_not_json)
    except UnicodeDecodeError as error:
        raise DeadRowError(DeadCode.BAD_UTF8, f"invalid UTF-8 at byte {error.start} of the line") from None
    except (ValueError, RecursionError) as error:
        raise DeadRowError(DeadCode.BAD_JSON, str(error)) from None
    if not isinstance(record, dict):
        raise DeadRowError(DeadCode.BAD_JSON, f"the line holds a {type(record).__name__}, not an object")
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _is_deeper(record, MAX_DEPTH):
        raise DeadRowError(DeadCode.BAD_JSON, f"nested deeper than {MAX_DEPTH}")
    return record


def _is_deeper(record: dict[str, object], depth: int) -> bool:
    level: list[dict[str, object] | list[object]] = [record]
    for _ in range(depth):
        values = chain.from_iterable(part.values() if isinstance(part, dict) else part for part in level)
        level = [value for value in values if isinstance(value, dict | list)]
    return bool(level)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record: dict[str, object] = {}
    for name, value in pairs:
        if name in record:
            msg = f"key {name!r} occurs twice"
            raise ValueError(msg)
        record[name] = value
    return record


def _not_json(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _keep_value(name: str, value: object, kind: pa.DataType) -> object:
    if value is None:
        return None
    if pa.types.is_string(kind):
        text = value if isinstance(value, str) else json_text(value)
        check_unicode(text)
        return text
    try:
        typed = pa.scalar(value, type=kind).as_py()
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise DeadRowError(DeadCode.BAD_VALUE, f"column {name!r} is not {kind}: {error}") from None
    # Arrow cuts 1.5 to 1, takes true for 1.0, and makes too large a number infinite
    exact = isfinite(typed) if pa.types.is_floating(kind) else typed == value
    if not exact or isinstance(value, bool) is not pa.types.is_boolean(kind):
        raise DeadRowError(DeadCode.BAD_VALUE, f"column {name!r} is not {kind}: {value!r}")
    return typed
