"""From a unit's rows and their vectors to its shard and its dead letters, in memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import shard
from pipeline.calibration import Codes
from pipeline.corpus.scripts import count_scripts
from pipeline.encoders.base import Encoded, Vectors
from pipeline.plan import shard_key
from pipeline.ray_data import payload
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.payload import Payload
from pipeline.records import DeadCode, Unit
from pipeline.schema import decode_schema

Flags = npt.NDArray[np.bool_]
_BAD_VECTOR = DeadCode.BAD_VECTOR, "the encoder returned a vector that is not finite or has no length"


def usable(vectors: Vectors, *, normalized: bool) -> Flags:
    """Tell for each vector whether it is finite and not zero (normalised: of length 1), bool [n]."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    good: Flags = np.isfinite(norms) & (norms > 0)
    if normalized:
        good &= np.abs(norms - 1) < 1e-3
    return good


def assemble(order: WorkOrder, unit: Unit, work: Payload, found: Encoded, good: Flags) -> shard.Shard:
    """Build the shard of a unit; its rows that are not `good`, bool [n], become dead letters."""
    codes, clipped = _codes(order, found.vectors[good])
    info = shard.ShardInfo(
        plan_id=order.plan_id,
        unit=unit.number,
        description=order.description,
        chars=_sum(work.prepared.rows["chars"], good),
        chars_lost=_sum(work.prepared.rows["chars_lost"], good),
        clipped=clipped,
        scripts=count_scripts(np.asarray(work.prepared.rows[payload.SCRIPT])[good]),
        tokens=found.tokens,
    )
    key = shard_key(order.plan_id, unit.number)
    return shard.build(info, key, _table(order, unit, work, codes, good), _dead_table(unit, work, good, found.dead))


def _codes(order: WorkOrder, vectors: Vectors) -> tuple[Codes, int]:
    """Return vectors as the shard holds them, and how many numbers were cut to the ends of their range."""
    if order.calibration is None:
        return vectors, 0
    codes, clipped = order.calibration.encode(vectors)
    return codes, int(clipped.sum())


def _table(order: WorkOrder, unit: Unit, work: Payload, codes: Codes, good: Flags) -> pa.Table:
    """Put the good rows together; `codes` are of these alone."""
    schema = decode_schema(order.schema)
    columns = {
        "id": work.ids.cast(pa.string()),
        **work.keep,
        "n_tokens": work.prepared.rows["n_tokens"],
        "truncated": work.prepared.rows["truncated"],
        "source_file": pa.array(_sources(unit), pa.string()).take(work.slice_index),
        "source_row": work.source_row,
    }
    kept = {name: column.filter(pa.array(good)) for name, column in columns.items()}
    kept["embedding"] = pa.FixedSizeListArray.from_arrays(
        pa.array(codes.reshape(-1)), type=schema.field("embedding").type
    )
    return pa.table([kept[name] for name in schema.names], schema=schema)


def _dead_table(unit: Unit, work: Payload, good: Flags, dead: Mapping[int, tuple[DeadCode, str]]) -> pa.Table:
    sources = _sources(unit)
    letters = [
        (letter["slice_index"], letter["row"], letter["code"], letter["reason"]) for letter in work.dead.to_pylist()
    ]
    slices, rows = work.slice_index.to_numpy(), work.source_row.to_numpy()
    for row in np.flatnonzero(~good).tolist():
        code, reason = dead.get(row, _BAD_VECTOR)
        letters.append((int(slices[row]), int(rows[row]), str(code), reason))
    return shard.dead_table([(sources[index], row, code, reason) for index, row, code, reason in sorted(letters)])


def _sum(counts: pa.Array, good: Flags) -> int:
    return int(counts.to_numpy()[good].sum(dtype=np.int64))


def _sources(unit: Unit) -> list[str]:
    return [piece.source.path for piece in unit.slices]
