"""Row keys of a unit: each planned (source file, row) must be embedded or dead, once, in order."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audit.findings import RowFaults
from pipeline.records import Unit

Positions = npt.NDArray[np.int64]


def positions(unit: Unit, keyed: pa.Table) -> Positions:
    """Return the place of each row in the unit, by its row key; -1 where the unit has no such row."""
    pieces = {piece.source.path: index for index, piece in enumerate(unit.slices)}
    first = np.array([piece.first_row for piece in unit.slices] + [0])
    rows = np.array([piece.rows for piece in unit.slices] + [0])
    start = np.array([0, *accumulate(piece.rows for piece in unit.slices)])
    sources = keyed["source_file"].combine_chunks().dictionary_encode()
    codes = np.array([pieces.get(path, -1) for path in sources.dictionary.to_pylist()] + [-1])
    piece = codes[sources.indices.to_numpy(zero_copy_only=False)]
    offset = keyed["source_row"].to_numpy() - first[piece]
    found: Positions = np.where((offset >= 0) & (offset < rows[piece]), start[piece] + offset, -1)
    return found


def row_name(unit: Unit, position: int) -> str:
    """Name the row at a place of the unit."""
    for piece in unit.slices:
        if position < piece.rows:
            return f"{piece.source.path} row {piece.first_row + position}"
        position -= piece.rows
    raise IndexError(position)


def index_by_position(unit: Unit, found: Positions) -> Positions:
    """Turn places into, for each row of the unit, the index where it was found, or -1."""
    index = np.full(unit.rows, -1)
    index[found[found >= 0]] = np.flatnonzero(found >= 0)
    return index


def key_faults(
    key: str, unit: Unit, rows: tuple[pa.Table, Positions], dead: tuple[pa.Table, Positions] | None
) -> list[str]:
    """Compare the keys of a shard and of its dead letters with the unit's planned rows.

    Without `dead` (they cannot be read) no row is reported missing.
    """
    faults = RowFaults(key)
    tables = [("embeds", *rows), *([("buries", *dead)] if dead else [])]
    for verb, table, found in tables:
        for index in np.flatnonzero(found < 0):
            name = f"{table['source_file'][index].as_py()} row {table['source_row'][index].as_py()}"
            faults.add("foreign", f"{verb} {name}, which is not in unit {unit.number}")
        known = found[found >= 0]
        for index in np.flatnonzero(np.diff(known) < 0):
            faults.add("order", f"{row_name(unit, known[index + 1])} comes after {row_name(unit, known[index])}")
    everything = np.concatenate([found[found >= 0] for _, _, found in tables])
    counts = np.bincount(everything, minlength=unit.rows)
    for position in np.flatnonzero(counts > 1).tolist():
        faults.add("twice", f"{row_name(unit, position)} is there {counts[position]} times")
    for position in np.flatnonzero(counts == 0).tolist() if dead else ():
        faults.add("missing", f"{row_name(unit, position)} is neither embedded nor dead")
    return faults.sentences()
