"""Which rows belong to which unit: look at every file once, cut it, pack the pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles, Listing, RowRule, reader_of
from pipeline.corpus.columns import ColumnCheck
from pipeline.corpus.reader import CutLimits, Inspection
from pipeline.records import Slice, SourceFile, Unit

GROUP_UNITS = 16
"""Units of a file that cannot be entered which one read task emits; the next task skips over them."""
INSPECTORS = 16


def make_units(config: JobConfig, unit_rows: int, listing: Listing) -> tuple[list[Unit], dict[str, pa.DataType]]:
    """Inspect every source file, in parallel, and pack their slices into units.

    Returns the units and the types of the kept columns.

    Raises:
        SourceError: a file cannot be read, or its columns do not fit the job.
    """
    check = ColumnCheck(config.input, RowRule(config.input, config.encoder.prompt))
    inspected: list[Inspection] = []
    for inspection, source in zip(_inspect(config, unit_rows, listing.sources), listing.sources, strict=False):
        check.add(source, inspection.columns)
        inspected.append(inspection)
    return pack(inspected, unit_rows, config.output.unit_bytes), check.keep_types()


def _inspect(config: JobConfig, unit_rows: int, sources: list[SourceFile]) -> Iterator[Inspection]:
    """Yield inspections in order; with a limit, one after the other and no more files than needed."""
    files = CorpusFiles(config.input.uri)
    left = config.input.limit

    def look(source: SourceFile) -> Inspection:
        limits = CutLimits(rows=unit_rows, size_bytes=config.output.unit_bytes, total_rows=left)
        return reader_of(source, config.input).inspect(files, source, limits)

    if left is None:
        with ThreadPoolExecutor(INSPECTORS) as pool:
            yield from pool.map(look, sources)
        return
    for source in sources:
        inspection = look(source)
        yield inspection
        left -= sum(piece.rows for piece in inspection.slices)
        if left <= 0:
            return


def pack(inspected: Iterable[Inspection], unit_rows: int, unit_bytes: int) -> list[Unit]:
    """Number the units: a file of several slices gives a unit each, small files share one.

    Slices that cannot be entered join the read group of the slice before them.
    """
    units: list[Unit] = []
    small: list[Slice] = []
    group = -1

    def flush() -> None:
        nonlocal group
        if small:
            group += 1
            units.append(Unit(number=len(units), group=group, slices=tuple(small)))
            small.clear()

    for inspection in inspected:
        if len(inspection.slices) == 1:
            piece = inspection.slices[0]
            rows = sum(other.rows for other in small) + piece.rows
            size = sum(other.size_bytes for other in small) + piece.size_bytes
            if rows > unit_rows or size > unit_bytes:
                flush()
            small.append(piece)
            continue
        flush()
        in_group = 0
        for piece, enterable in zip(inspection.slices, inspection.enterable, strict=True):
            if enterable or in_group == GROUP_UNITS:
                group, in_group = group + 1, 0
            in_group += 1
            units.append(Unit(number=len(units), group=group, slices=(piece,)))
    flush()
    return units
