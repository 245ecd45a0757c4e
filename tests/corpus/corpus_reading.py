"""Cut and read a corpus the way plan and read task do, without either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings

from pipeline.config import InputConfig, PromptConfig
from pipeline.corpus import CorpusFiles, RowRule, reader_of
from pipeline.corpus.columns import ColumnCheck
from pipeline.corpus.documents import Collector, Documents
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.records import Slice

MUCH = 1 << 40


def examples(count: int) -> settings:
    """Hypothesis settings for tests that write the same file anew for each example."""
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, suppress_health_check=allowed)


@dataclass(frozen=True)
class Reading:
    """What became of each row of a corpus."""

    documents: Documents
    keep: dict[str, list[Any]]
    types: dict[str, pa.DataType]

    @property
    def texts(self) -> list[str]:
        return self.documents.texts

    @property
    def ids(self) -> list[str | None]:
        return self.documents.ids

    @property
    def dead(self) -> dict[int, str]:
        """Code of each dead row of a single file."""
        return {letter.row: str(letter.code) for letter in self.documents.dead}

    @property
    def reasons(self) -> list[str]:
        return [letter.reason for letter in self.documents.dead]


def look(
    uri: Path | str, *, rows: int = MUCH, size_bytes: int = MUCH, limit: int | None = None, **keys: Any
) -> Inspection:
    """Inspect the only file of a corpus."""
    config = InputConfig(uri=str(uri), **keys)
    files = CorpusFiles(config.uri)
    (source,) = files.discover(config.format).sources
    limits = CutLimits(rows=rows, size_bytes=size_bytes, total_rows=limit)
    return reader_of(source, config).inspect(files, source, limits)


def read_slices(uri: Path | str, slices: list[Slice], **keys: Any) -> Documents:
    """Read slices of one file, given in order, in one pass."""
    config = InputConfig(uri=str(uri), **keys)
    collect = Collector(RowRule(config), {})
    list(reader_of(slices[0].source, config).read(CorpusFiles(str(uri)), iter(slices), collect))
    return collect.documents


def read(uri: Path | str, *, prompt: PromptConfig | None = None, rows: int = MUCH, **keys: Any) -> Reading:
    """Check the columns of every file, then read them one after the other, whole."""
    config = InputConfig(uri=str(uri), **keys)
    files, rule = CorpusFiles(config.uri), RowRule(config, prompt)
    check, cuts = ColumnCheck(config, rule), []
    for source in files.discover(config.format).sources:
        inspection = reader_of(source, config).inspect(files, source, CutLimits(rows=rows, size_bytes=MUCH))
        check.add(source, inspection.columns)
        cuts.append(inspection.slices)
    types = check.keep_types()
    collect = Collector(rule, types)
    for slices in cuts:
        for _ in reader_of(slices[0].source, config).read(files, iter(slices), collect):
            collect.next_slice()
    keep = {name: column.to_pylist() for name, column in collect.documents.keep_columns(types).items()}
    return Reading(documents=collect.documents, keep=keep, types=types)
