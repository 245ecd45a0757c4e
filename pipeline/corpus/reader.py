"""What a format must offer: its columns, its cut into slices, and the rows of a slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.corpus.documents import Collector
from pipeline.corpus.files import CorpusFiles
from pipeline.records import Slice, SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLimits:
    """How large a slice may be, and how many rows of the file are wanted at all."""

    rows: int
    size_bytes: int
    total_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the plan needs to know of a file.

    `columns` holds types where the file declares them, and None for keys seen in the first rows.
    `enterable` tells for each slice whether reading can start there without reading what lies before.
    """

    columns: dict[str, pa.DataType | None]
    slices: list[Slice]
    enterable: list[bool]


class Reader(Protocol):
    """One file format."""

    def inspect(self, files: CorpusFiles, source: SourceFile, limits: CutLimits) -> Inspection:
        """Look at a file once: its columns and its cut; an empty file gives one slice of 0 rows."""

    def read(self, files: CorpusFiles, slices: Iterator[Slice], collect: Collector) -> Iterator[Slice]:
        """Read consecutive slices of one file into `collect`; yield each slice when it is whole.

        Raises:
            SourceChangedError: the file is not the one the slices were cut from.
            SourceReadError: the bytes cannot be decoded.
        """
