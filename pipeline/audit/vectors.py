"""Vectors on their own (finite, of unit length) and, for the hashing encoder, against their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audit.coding import STEPS, Coding, stored_numbers
from pipeline.audit.findings import RowFaults

NORM_TOLERANCE = 1e-3
HASHING_TOLERANCE = 1e-6


def vector_faults(key: str, table: pa.Table, coding: Coding, *, normalized: bool) -> list[str]:
    """Find vectors that are not finite, have no length, or should have length 1 and do not."""
    codes, faults = stored_numbers(table), RowFaults(key)
    for index in np.flatnonzero(table["embedding"].is_null().to_numpy()).tolist():
        faults.add("null", f"{_row(table, index)}: there is no vector")
    if coding.vectors == "int8":
        for index in np.flatnonzero((codes.astype(np.int16) < -STEPS).any(axis=1)).tolist():
            faults.add("range", f"{_row(table, index)}: a code is below -{STEPS}, which is never written")
    if not coding.known:
        return faults.sentences()
    vectors = coding.decode(codes)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    wrong = ~np.isfinite(lengths) | (lengths == 0)
    if normalized:
        far = np.abs(lengths - 1) > NORM_TOLERANCE + coding.slack()
        wrong |= far & ~coding.at_ends(codes).any(axis=1)
    for index in np.flatnonzero(wrong).tolist():
        promised = ", promised 1" if normalized else ""
        faults.add("length", f"{_row(table, index)}: the vector has length {lengths[index]:.6g}{promised}")
    return faults.sentences()


def _row(table: pa.Table, index: int) -> str:
    return f"{table['source_file'][index].as_py()} row {table['source_row'][index].as_py()}"


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
