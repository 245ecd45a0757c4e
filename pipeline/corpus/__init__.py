"""From a URI to clean rows: find the files, cut them into slices, read a slice back.

A new format is one reader module and one line in `reader_of`.
"""

from __future__ import annotations

from typing import assert_never

from pipeline.config import InputConfig
from pipeline.corpus.delimited import DelimitedReader
from pipeline.corpus.documents import Documents
from pipeline.corpus.files import CorpusFiles, Listing
from pipeline.corpus.jsonl import JsonLinesReader
from pipeline.corpus.parquet import ParquetReader
from pipeline.corpus.reader import Reader
from pipeline.corpus.rows import RowRule
from pipeline.records import Format, SourceFile

__all__ = ["CorpusFiles", "Documents", "Listing", "Reader", "RowRule", "reader_of"]


def reader_of(source: SourceFile, config: InputConfig) -> Reader:
    """Return what reads a source file."""
    match source.format:
        case Format.JSONL:
            return JsonLinesReader()
        case Format.PARQUET:
            return ParquetReader()
        case Format.CSV | Format.TSV:
            return DelimitedReader(config.csv)
        case _:
            assert_never(source.format)
