"""The actor: encode a unit, build its shard, commit it, return the receipt.

A lock holds only the device part, so that one unit's build and commit run under the next one's forward.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from pipeline import failpoints, logs, shard, token_lengths
from pipeline.calibration import Codes
from pipeline.checkpoint.commits import commit, read_receipt
from pipeline.corpus.scripts import count_scripts
from pipeline.encoders.base import Encoded, Vectors
from pipeline.encoders.precision import device_name
from pipeline.exceptions import PipelineError, PoisonUnitError, to_json
from pipeline.plan import shard_key
from pipeline.ray_data import payload
from pipeline.ray_data.device import Device
from pipeline.ray_data.order import CALLS_PER_ACTOR, WorkOrder
from pipeline.ray_data.payload import Payload
from pipeline.ray_data.replica import Replica
from pipeline.ray_data.reporting import Reporting
from pipeline.records import BLOCKED, RATE_LIMIT, STARVED, DeadCode, Effort, Receipt, Unit
from pipeline.schema import decode_schema
from pipeline.storage import open_store

HELD_BACK_SECONDS = 5.0
"""A unit that may not begin keeps its place so long: what is read in vain would slow down what is being finished."""

_BAD_VECTOR = DeadCode.BAD_VECTOR, "the encoder returned a vector that is not finite or has no length"

RECEIPT_SCHEMA = pa.schema([("unit", pa.int64()), ("receipt", pa.string()), ("error", pa.string())])


class EncodeAndCommit:
    """One encoder replica. Called by Ray Data with one row, one unit, at a time from two threads."""

    def __init__(self, order: WorkOrder, ledger: ray.actor.ActorHandle) -> None:
        self._order, self._ledger, self._host = order, ledger, socket.gethostname()
        logs.follow(order.log)
        self._schema = decode_schema(order.schema)
        self._store = open_store(order.config.output.uri)
        self._replica = Replica(order, ledger)
        if self._replica.failure is None:
            replica = ray.get_runtime_context().get_actor_id()
            ledger.joined.remote(replica, device_name(order.device), self._host)
        self._device = Device(calls=CALLS_PER_ACTOR)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode and commit the unit in a table of one row; errors travel as data.

        A unit that may not begin any more has neither receipt nor error.
        """
        unit = Unit.from_json(batch.column("unit")[0].as_py())
        with self._device.call(), logs.of_unit(unit.number):
            return self._answer(unit, batch)

    def _answer(self, unit: Unit, batch: pa.Table) -> pa.Table:
        error, receipt = batch.column("error")[0].as_py(), None
        if error is None:
            try:
                receipt = self._unit(unit, batch)
            except PipelineError as failure:
                error = to_json(failure)
        if receipt or error:
            self._ledger.end.remote(unit.number)
        values = [unit.number, receipt.to_json() if receipt else None, error]
        return pa.table([pa.array([value]) for value in values], names=RECEIPT_SCHEMA.names).cast(RECEIPT_SCHEMA)

    def _unit(self, unit: Unit, batch: pa.Table) -> Receipt | None:
        hosted = self._replica.spec.hosted is not None
        attempt = ray.get(self._ledger.begin.remote(unit.number))
        if not attempt:
            time.sleep(HELD_BACK_SECONDS)
            return None
        allowed = self._order.config.limits.unit_attempts
        if attempt > (allowed if hosted else allowed + 1):
            raise PoisonUnitError(unit.number, attempt - 1, unit.pieces)
        key = shard_key(self._order.plan_id, unit.number)
        # a retried unit may be committed: its worker died after the write
        present = read_receipt(self._store, key, self._order.plan_id) if attempt > 1 else None
        return present or self._encode_and_commit(unit, key, payload.from_row(batch), lost=attempt - 1)

    def _encode_and_commit(self, unit: Unit, key: str, work: Payload, *, lost: int) -> Receipt:
        with self._device.turn() as idle:
            started = time.perf_counter()
            failpoints.hit("encode.start", unit.number)
            batches = Reporting(self._ledger, unit.number)
            found = self._replica.encode(unit, work.prepared, batches, lost=lost)
            failpoints.hit("encode.mid", unit.number)
            encoded = time.perf_counter()
        good = usable(found.vectors, normalized=self._replica.spec.normalized)
        made = self._build(unit, key, work, found, good)
        receipt = commit(self._store, made, self._order.plan_id)
        seconds = {
            **work.seconds,
            "encode": encoded - started,
            **({RATE_LIMIT: found.waited_s} if found.waited_s else {}),
            "commit": time.perf_counter() - encoded,
            STARVED: idle.starved,
            BLOCKED: idle.blocked,
        }
        effort = Effort(
            seconds={name: round(value, 4) for name, value in seconds.items()},
            batch_tokens=batches.batch_tokens,
            batch_room=batches.batch_room,
            lengths=token_lengths.count(work.prepared.n_tokens[good]),
            host=self._host,
        )
        return replace(receipt, effort=effort)

    def _build(self, unit: Unit, key: str, work: Payload, found: Encoded, good: npt.NDArray[np.bool_]) -> shard.Shard:
        codes, clipped = self._codes(found.vectors[good])
        info = shard.ShardInfo(
            plan_id=self._order.plan_id,
            unit=unit.number,
            description=self._order.description,
            chars=_sum(work.prepared.rows["chars"], good),
            chars_lost=_sum(work.prepared.rows["chars_lost"], good),
            clipped=clipped,
            scripts=count_scripts(np.asarray(work.prepared.rows[payload.SCRIPT])[good]),
            tokens=found.tokens,
        )
        return shard.build(info, key, self._table(unit, work, codes, good), _dead_table(unit, work, good, found.dead))

    def _codes(self, vectors: Vectors) -> tuple[Codes, int]:
        """Return vectors as the shard holds them, and how many numbers were cut to the ends of their range."""
        if self._order.calibration is None:
            return vectors, 0
        codes, clipped = self._order.calibration.encode(vectors)
        return codes, int(clipped.sum())

    def _table(self, unit: Unit, work: Payload, codes: Codes, good: npt.NDArray[np.bool_]) -> pa.Table:
        """Put the good rows together; `codes` are of these alone."""
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
            pa.array(codes.reshape(-1)), type=self._schema.field("embedding").type
        )
        return pa.table([kept[name] for name in self._schema.names], schema=self._schema)


def usable(vectors: Vectors, *, normalized: bool) -> npt.NDArray[np.bool_]:
    """Tell for each vector whether it is finite and not zero (normalised: of length 1), bool [n]."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    good: npt.NDArray[np.bool_] = np.isfinite(norms) & (norms > 0)
    if normalized:
        good &= np.abs(norms - 1) < 1e-3
    return good


def _sum(counts: pa.Array, good: npt.NDArray[np.bool_]) -> int:
    return int(counts.to_numpy()[good].sum(dtype=np.int64))


def _sources(unit: Unit) -> list[str]:
    return [piece.source.path for piece in unit.slices]


def _dead_table(
    unit: Unit, work: Payload, good: npt.NDArray[np.bool_], dead: Mapping[int, tuple[DeadCode, str]]
) -> pa.Table:
    sources = _sources(unit)
    letters = [
        (letter["slice_index"], letter["row"], letter["code"], letter["reason"]) for letter in work.dead.to_pylist()
    ]
    slices, rows = work.slice_index.to_numpy(), work.source_row.to_numpy()
    for row in np.flatnonzero(~good).tolist():
        code, reason = dead.get(row, _BAD_VECTOR)
        letters.append((int(slices[row]), int(rows[row]), str(code), reason))
    return shard.dead_table([(sources[index], row, code, reason) for index, row, code, reason in sorted(letters)])
