"""Vectors on their own (finite, of unit length) and, for the hashing encoder, against their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audit.findings import RowFaults

NORM_TOLERANCE = 1e-3
HASHING_TOLERANCE = 1e-6

Matrix = npt.NDArray[np.float32]


def matrix(table: pa.Table) -> Matrix:
    """Return the vectors of a shard, [rows, dimension]; a null vector is all NaN."""
    chunks = table["embedding"]
    column = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # the latter copies
    kind = column.type
    filled = column.fill_null([float("nan")] * kind.list_size) if column.null_count else column
    values: Matrix = filled.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
    return values


def vector_faults(key: str, table: pa.Table, *, normalized: bool) -> list[str]:
    """Find vectors that are not finite, have no length, or should have length 1 and do not."""
    vectors = matrix(table)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    faults = RowFaults(key)
    wrong = ~np.isfinite(lengths) | (lengths == 0)
    if normalized:
        wrong |= np.abs(lengths - 1) > NORM_TOLERANCE
    for index in np.flatnonzero(wrong):
        row = f"{table['source_file'][index].as_py()} row {table['source_row'][index].as_py()}"
        promised = ", promised 1" if normalized else ""
        faults.add("length", f"{row}: the vector has length {lengths[index]:.6g}{promised}")
    return faults.sentences()


def hashing_vectors(texts: Sequence[str], dimension: int) -> npt.NDArray[np.float64]:
    """Compute what `hashing:DIMENSION` is defined to give for texts with their prompts.

    SHAKE-256 of the UTF-8 bytes, read as little-endian 16-bit integers; 0.5 is added to the first, and the
    vector is scaled to length 1.
    """
    rows = [np.frombuffer(hashlib.shake_256(text.encode()).digest(2 * dimension), "<i2") for text in texts]
    values = np.array(rows, np.float64).reshape(-1, dimension)
    values[:, 0] += 0.5
    vectors: npt.NDArray[np.float64] = values / np.sqrt((values**2).sum(axis=1, keepdims=True))
    return vectors
