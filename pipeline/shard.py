"""A unit's rows as one verified Parquet file, built in memory and read back before anyone may publish it.

Nothing in the bytes depends on the attempt, the clock or the host: equal work gives equal shards.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import fingerprint
from pipeline.exceptions import DamagedOutputError
from pipeline.records import Receipt
from pipeline.schema import DEAD_SCHEMA

FORMAT = 1
PREFIX = "embatch."
ROW_GROUP_ROWS = 4096
_DECODE_ERRORS = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard's bytes and the receipt that describes them, with its dead letters' bytes, if any."""

    data: bytes
    receipt: Receipt
    dead_data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """What a shard's rows do not tell: which plan and unit, how vectors were made, and counts of texts and vectors.

    `tokens` are what a hosted model counted for the unit; None where the rows tell.
    """

    plan_id: str
    unit: int
    description: dict[str, str]
    chars: int = 0
    chars_lost: int = 0
    clipped: int = 0
    scripts: dict[str, int] = field(default_factory=dict)
    tokens: int | None = None


def build(info: ShardInfo, key: str, table: pa.Table, dead: pa.Table) -> Shard:
    """Write, read back and verify one shard.

    Args:
        info: which plan and unit; its description goes into the footer as it is.
        key: where the shard will lie.
        table: rows of the output schema.
        dead: dead letters, of `DEAD_SCHEMA`.

    Raises:
        DamagedOutputError: what was read back is not what was written.
    """
    dead_data = _parquet(dead, {}) if len(dead) else None
    dead_sha256 = fingerprint.sha256(dead_data) if dead_data else None
    digest = fingerprint.content_digest(table)
    counts = {
        "rows_in": len(table) + len(dead),
        "rows_ok": len(table),
        "tokens": (pc.sum(table["n_tokens"]).as_py() or 0) if info.tokens is None else info.tokens,
        "truncated": pc.sum(table["truncated"]).as_py() or 0,
        "chars": info.chars,
        "chars_lost": info.chars_lost,
        "clipped": info.clipped,
        "scripts": info.scripts,
        "dead_by_code": _count(dead["code"]),
        "dead_key": f"_dead/part-{info.unit:08d}-{dead_sha256[:12]}.parquet" if dead_sha256 else None,
        "dead_sha256": dead_sha256,
        "content_digest": digest,
    }
    metadata = {"format": str(FORMAT), "plan_id": info.plan_id, "unit": str(info.unit), **info.description}
    metadata["counts"] = fingerprint.canonical_json(counts).decode()
    data = _parquet(table, metadata)
    if fingerprint.content_digest(read(data, key)) != digest:
        raise DamagedOutputError(key, ["a shard read back differently from what was written; nothing was published"])
    return Shard(data=data, receipt=describe(key, data), dead_data=dead_data)


def read(data: bytes, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a shard, or some of its columns, its page checksums verified.

    Raises:
        DamagedOutputError: its bytes are not those that were written.
    """
    try:
        return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read(columns)
    except _DECODE_ERRORS as error:
        raise DamagedOutputError(key, [f"not readable as Parquet: {error}"]) from error


def footer(data: bytes, key: str) -> dict[str, str]:
    """Return the `embatch.` metadata of a shard, keys without the prefix.

    Raises:
        DamagedOutputError: it is not a shard of this format.
    """
    try:
        metadata = pq.read_metadata(io.BytesIO(data)).metadata or {}
        values = {name.decode(): value.decode() for name, value in metadata.items() if name.startswith(PREFIX.encode())}
    except _DECODE_ERRORS as error:
        raise DamagedOutputError(key, [f"not a Parquet file: {error}"]) from error
    found = {name.removeprefix(PREFIX): value for name, value in values.items()}
    if found.get("format") != str(FORMAT):
        raise DamagedOutputError(key, [f"shard format {found.get('format')!r}; this embatch reads {FORMAT}"])
    return found


def describe(key: str, data: bytes) -> Receipt:
    """Make the receipt of a shard from its bytes alone.

    Raises:
        DamagedOutputError: it is not a shard of this format.
    """
    found = footer(data, key)
    try:
        unit, counts = int(found["unit"]), json.loads(found["counts"])
        return Receipt(
            unit=unit,
            key=key,
            size_bytes=len(data),
            sha256=fingerprint.sha256(data),
            calibration=found.get("calibration"),
            **counts,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedOutputError(key, [f"its footer lacks unit or counts: {error}"]) from error


def _parquet(table: pa.Table, metadata: dict[str, str]) -> bytes:
    prefixed: dict[Any, Any] = {PREFIX + name: value for name, value in metadata.items()}
    others = [name for name in table.column_names if name != "embedding"]
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(prefixed or None),
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[*others, *_byte_vectors(table.schema)],
        write_statistics=others,
        write_page_checksum=True,
    )
    return sink.getvalue()


def _byte_vectors(schema: pa.Schema) -> list[str]:
    """Return the path of vectors whose elements are a byte: Parquet stores each as four, but a dictionary's as one."""
    if "embedding" not in schema.names or schema.field("embedding").type.value_type.bit_width != 8:
        return []
    return ["embedding.list.element"]


def _count(codes: pa.ChunkedArray) -> dict[str, int]:
    counts = {str(entry["values"]): int(entry["counts"]) for entry in codes.value_counts().to_pylist()}
    return dict(sorted(counts.items()))


def dead_table(letters: list[tuple[str, int, str, str]]) -> pa.Table:
    """Make the dead-letter table of a unit from (source file, row, code, reason), in order of the rows."""
    columns = list(zip(*letters, strict=True)) or [()] * len(DEAD_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, DEAD_SCHEMA, strict=True)]
    return pa.table(arrays, schema=DEAD_SCHEMA)
