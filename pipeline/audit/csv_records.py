"""The records of CSV and TSV files, walked field by field from the first byte: the audit's own reading of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.audit.rows import Row
from pipeline.records import DeadCode, Format

READ_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_START, _PLAIN, _QUOTED, _CLOSED = range(4)
"""Where in a field a byte stands: at its beginning, in it, between its quotes, or after one that may be half of two."""


class CsvRecords:
    """A file's records, each with its size in bytes; `asked` is `input.csv` of the job, empty where it says nothing."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        source_format: Format,
        asked: Mapping[str, Any],
        partitions: Mapping[str, str | None],
        max_record: int,
    ) -> None:
        self._stream, self._partitions, self._max_record = stream, partitions, max_record
        self._delimiter: str = asked.get("delimiter") or ("\t" if source_format is Format.TSV else ",")
        self._quotes = asked.get("quoting", "standard") == "standard"
        self._header = asked.get("header", True)

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """Yield the size and the row of each record after the header.

        Where the header names nothing, no row can be more than dead.
        """
        size, record = self._record(max(MAX_HEADER_BYTES, self._max_record), is_first=True)
        names = self._fields(record) if isinstance(self._header, bool) else list(self._header)
        if isinstance(names, DeadCode):
            names = []
        if self._header is False:
            names = [f"column{number}" for number in range(1, len(names) + 1)]
        if self._header is True:
            size, record = self._record(self._max_record)
        while size:
            yield size, self._row(record, names) if size <= self._max_record else DeadCode.TOO_LARGE
            size, record = self._record(self._max_record)

    def _row(self, record: bytes, names: list[str]) -> Row:
        fields = self._fields(record)
        if isinstance(fields, DeadCode):
            return fields
        if len(fields) != len(names):
            return DeadCode.BAD_CSV
        return {**self._partitions, **dict(zip(names, fields, strict=True))}

    def _record(self, most: int, *, is_first: bool = False) -> tuple[int, bytes]:
        """Read the next record; returns its size, 0 at the end of the file, and its bytes where `most` allows them."""
        pieces, size, state = [], 0, _START
        while piece := self._stream.readline(READ_BYTES):
            if is_first and not size:
                piece = piece.removeprefix(_BOM)
            size += len(piece)
            if size <= most:
                pieces.append(piece)
            else:
                pieces.clear()
            if self._quotes:
                state = self._walk(piece, state)
            if state != _QUOTED and piece.endswith(b"\n"):
                break
        return size, b"".join(pieces)

    def _walk(self, piece: bytes, state: int) -> int:
        """Follow a piece of a record from one place in a field to the next."""
        delimiter, at = self._delimiter.encode(), 0
        while at < len(piece):
            if state == _QUOTED:
                at = piece.find(b'"', at) + 1
                if not at:
                    return _QUOTED
                state = _CLOSED
            elif state in (_START, _CLOSED) and piece[at : at + 1] == b'"':
                state, at = _QUOTED, at + 1
            else:
                at = piece.find(delimiter, at) + 1
                if not at:
                    return _PLAIN
                state = _START
        return state

    def _fields(self, record: bytes) -> list[str] | DeadCode:
        """Take a record apart, or say why it cannot be."""
        if b"\0" in record:
            return DeadCode.BAD_CSV
        try:
            text = record.decode()
        except UnicodeDecodeError:
            return DeadCode.BAD_UTF8
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            return DeadCode.EMPTY
        fields = self._walked(text) if self._quotes else text.split(self._delimiter)
        return DeadCode.BAD_CSV if fields is None else fields

    def _walked(self, text: str) -> list[str] | None:
        """Return the fields of a record with quotes, None where they are malformed."""
        fields = []
        at = 0
        while True:
            if text.startswith('"', at):
                end = text.find('"', at + 1)
                while end >= 0 and text.startswith('""', end):
                    end = text.find('"', end + 2)
                if end < 0:
                    return None
                fields.append(text[at + 1 : end].replace('""', '"'))
                end += 1
                if end < len(text) and text[end] != self._delimiter:
                    return None
            else:
                end = text.find(self._delimiter, at)
                end = len(text) if end < 0 else end
                if "\r" in text[at:end]:
                    return None
                fields.append(text[at:end])
            if end == len(text):
                return fields
            at = end + 1
