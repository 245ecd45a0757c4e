"""Receipts as columns: what the manifest's parts and the receipt cache hold, without the seconds of a run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fingerprint import canonical_json
from pipeline.records import Receipt

SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("content_digest", pa.string(), nullable=False),
        pa.field("rows_in", pa.int64(), nullable=False),
        pa.field("rows_ok", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("truncated", pa.int64(), nullable=False),
        pa.field("chars", pa.int64(), nullable=False),
        pa.field("chars_lost", pa.int64(), nullable=False),
        pa.field("dead_by_code", pa.string(), nullable=False),
        pa.field("dead_key", pa.string()),
        pa.field("dead_sha256", pa.string()),
        pa.field("clipped", pa.int64(), nullable=False),
        pa.field("scripts", pa.string(), nullable=False),
        pa.field("calibration", pa.string()),
    ]
)
_COUNTS = ("dead_by_code", "scripts")
_LATER = {"clipped", "scripts", "calibration"}
"""Not in what embatch 0.1 wrote before vectors could be compact."""


def to_columns(receipts: Sequence[Receipt]) -> dict[str, list[Any]]:
    """Return one list a field of `SCHEMA`; counts by name become JSON."""
    columns: dict[str, list[Any]] = {name: [getattr(receipt, name) for receipt in receipts] for name in SCHEMA.names}
    for name in _COUNTS:
        columns[name] = [canonical_json(counts).decode() if counts else "{}" for counts in columns[name]]
    return columns


def from_columns(columns: Mapping[str, Sequence[Any]]) -> list[Receipt]:
    """Read back what `to_columns` gave.

    Raises:
        KeyError, TypeError, ValueError: these are not its columns.
    """
    if columns.keys() | _LATER != set(SCHEMA.names):
        raise KeyError(*sorted(columns.keys() ^ set(SCHEMA.names)))
    parsed: dict[str, Sequence[Any]] = {**columns}
    for name in _COUNTS:
        # many receipts say the same, and share it
        known = {text: json.loads(text) for text in set(columns.get(name, ()))}
        parsed |= {name: [known[text] for text in columns[name]]} if known else {}
    return [Receipt(**dict(zip(parsed, row, strict=True))) for row in zip(*parsed.values(), strict=True)]


def to_parquet(receipts: Sequence[Receipt]) -> bytes:
    """Serialize; equal receipts give equal bytes."""
    columns = to_columns(receipts)
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=SCHEMA), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def from_parquet(data: bytes) -> list[Receipt]:
    """Read back what `to_parquet` wrote."""
    table = pq.ParquetFile(io.BytesIO(data)).read()
    return from_columns({name: table[name].to_pylist() for name in table.column_names})
