"""How CSV is written: where its records end, and what fields they have.

RFC 4180 as Python's `csv`, pandas and DuckDB read it: a quote counts where a field begins with it, and is text within
any other field. The end of a record depends on what stands before it and on nothing else, so that a malformed one is
left behind at a place that planning, reading and the audit agree on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.config import CsvConfig
from pipeline.corpus.rows import DeadRowError
from pipeline.records import DeadCode, Format

_QUOTE, _NEWLINE, _OTHER = ord('"'), ord("\n"), 0
_DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}
_QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the records of a file are written; `quoted` where fields may stand in quotes."""

    delimiter: str
    quoted: bool

    @classmethod
    def of(cls, config: CsvConfig, found: Format) -> Dialect:
        """Take the job's words, and the format's where it has none."""
        return cls(delimiter=config.delimiter or _DELIMITERS[found], quoted=config.quoting == "standard")

    def fields(self, record: bytes) -> list[str]:
        """Return the fields of a record, its line end included or not.

        Raises:
            DeadRowError: it is blank, not UTF-8 or malformed.
        """
        nul = record.find(b"\0")
        if nul >= 0:
            raise DeadRowError(DeadCode.BAD_CSV, f"a NUL at byte {nul} of the record")
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            raise DeadRowError(DeadCode.BAD_UTF8, f"invalid UTF-8 at byte {error.start} of the record") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise DeadRowError(DeadCode.EMPTY, "the line is blank")
        if self.quoted and ('"' in text or "\r" in text):
            return self._quoted_fields(text)
        return text.split(self.delimiter)

    def _quoted_fields(self, text: str) -> list[str]:
        pattern = _field(self.delimiter)
        fields: list[str] = []
        at, more = 0, True
        while more:
            match = pattern.match(text, at)
            if match is None:
                raise DeadRowError(DeadCode.BAD_CSV, _fault(text, at, len(fields) + 1))
            quoted, plain, delimiter = match.groups()
            fields.append(plain if quoted is None else quoted.replace('""', '"'))
            at, more = match.end(), bool(delimiter)
        return fields


@lru_cache
def _field(delimiter: str) -> re.Pattern[str]:
    other = re.escape(delimiter)
    # possessive: what a hostile record does not match is given up at once
    return re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|((?!")[^{other}\r]*+))({other}|\Z)')


def _fault(text: str, at: int, number: int) -> str:
    lines = text.count("\n") + 1
    where = f"field {number}" + (f"; the record has {lines} lines" if lines > 1 else "")
    if not text.startswith('"', at):
        return f"a carriage return outside quotes in {where}"
    return f"text after the closing quote of {where}" if _QUOTED.match(text, at) else f"no closing quote of {where}"


class RecordEnds:
    """Finds where records end, block after block; holds none of their bytes.

    Quotes take turns in opening and closing, also the doubled ones inside a field, as long as each that opens stands
    after a delimiter, a line end or the quote that closed just before it. One that does not is text and left out.
    """

    def __init__(self, dialect: Dialect, position: int) -> None:
        self.position = position
        """The offset after the last byte that was fed; a record begins at the first one."""
        self.start = position
        """The offset at which the record begins that has not ended."""
        self.lines = 0
        """Line ends within that record."""
        self._dialect = dialect
        self._delimiter = ord(dialect.delimiter)
        self._inside = False
        self._last = _NEWLINE

    @property
    def has_open_quote(self) -> bool:
        """Whether what was fed ends within quotes."""
        return self._inside

    def feed(self, block: bytes) -> npt.NDArray[np.int64]:
        """Return the offsets after the records that end in the next bytes of the file, int64 [records]."""
        data = np.frombuffer(block, np.uint8)
        breaks = np.flatnonzero(data == _NEWLINE)
        ends = self._outside(data, breaks) if self._dialect.quoted and len(data) else breaks
        found: npt.NDArray[np.int64] = ends + self.position + 1
        if len(ends):
            self.start, self.lines = int(found[-1]), int(np.sum(breaks > ends[-1]))
        else:
            self.lines += len(breaks)
        self.position += len(block)
        return found

    def _outside(self, data: npt.NDArray[np.uint8], breaks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the line ends that stand outside quotes."""
        quotes = np.flatnonzero(data == _QUOTE)
        before = data[np.maximum(quotes - 1, 0)]
        if len(quotes) and quotes[0] == 0:
            before[0] = self._last
        self._last = int(data[-1])
        opening = before[int(self._inside) :: 2]
        if not np.isin(opening, (self._delimiter, _NEWLINE, _QUOTE)).all():
            quotes = self._effective(quotes, before)
            if self._last == _QUOTE and (not len(quotes) or quotes[-1] != len(data) - 1):
                self._last = _OTHER
        turns = np.searchsorted(quotes, breaks) + self._inside
        self._inside ^= bool(len(quotes) % 2)
        outside: npt.NDArray[np.int64] = breaks[turns % 2 == 0]
        return outside

    def _effective(self, quotes: npt.NDArray[np.int64], before: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return the quotes that open or close a field."""
        effective = []
        inside = self._inside
        closed = -1 if before[0] == _QUOTE and quotes[0] == 0 else None
        for at, previous in zip(quotes.tolist(), before.tolist(), strict=True):
            if inside:
                inside, closed = False, at
            elif previous in (self._delimiter, _NEWLINE) or closed == at - 1:
                inside = True
            else:
                continue
            effective.append(at)
        return np.array(effective, np.int64)
