"""From a URI to clean rows: find the files, cut them into slices, read a slice back.

A new format is one reader module and one line in `READERS`.
"""

from __future__ import annotations

from pipeline.corpus import jsonl, parquet
from pipeline.corpus.documents import Documents
from pipeline.corpus.files import CorpusFiles, Listing
from pipeline.corpus.reader import Reader
from pipeline.corpus.rows import RowRule
from pipeline.records import Format

__all__ = ["READERS", "CorpusFiles", "Documents", "Listing", "Reader", "RowRule"]

READERS: dict[Format, Reader] = {
    Format.JSONL: jsonl.JsonLinesReader(),
    Format.PARQUET: parquet.ParquetReader(),
}
