"""The actor: encode a unit, build its shard, commit it, return the receipt.

A lock holds only the device part, so that one unit's build and commit run under the next one's forward.
"""

from __future__ import annotations

import socket
import time
import uuid
from dataclasses import replace

import pyarrow as pa
import ray

from pipeline import failpoints, logs, token_lengths
from pipeline.checkpoint.commits import commit, read_receipt
from pipeline.encoders.precision import device_name
from pipeline.exceptions import PipelineError, PoisonUnitError, to_json
from pipeline.plan import shard_key
from pipeline.ray_data import payload
from pipeline.ray_data.assembling import assemble, usable
from pipeline.ray_data.device import Device
from pipeline.ray_data.order import CALLS_PER_ACTOR, WorkOrder
from pipeline.ray_data.payload import Payload
from pipeline.ray_data.replica import Replica
from pipeline.ray_data.reporting import Reporting
from pipeline.records import BLOCKED, RATE_LIMIT, STARVED, Effort, Receipt, Unit
from pipeline.storage import open_store

HELD_BACK_SECONDS = 5.0
"""A unit that may not begin keeps its place so long: what is read in vain would slow down what is being finished."""

RECEIPT_SCHEMA = pa.schema([("unit", pa.int64()), ("receipt", pa.string()), ("error", pa.string())])


class EncodeAndCommit:
    """One encoder replica. Called by Ray Data with one row, one unit, at a time from two threads."""

    def __init__(self, order: WorkOrder, ledger: ray.actor.ActorHandle) -> None:
        self._order, self._ledger, self._host = order, ledger, socket.gethostname()
        logs.follow(order.log)
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
        attempt = ray.get(self._ledger.begin.remote(unit.number, uuid.uuid4().hex))
        if not attempt:
            time.sleep(HELD_BACK_SECONDS)
            return None
        allowed = self._order.config.limits.unit_attempts
        if attempt > (allowed if hosted else allowed + 1):
            raise PoisonUnitError(unit.number, attempt - 1, unit.pieces)
        key = shard_key(self._order.plan_id, unit.number)
        # a retried unit may be committed: its worker died after the write
        present = read_receipt(self._store, key, self._order.plan_id) if attempt > 1 else None
        return present or self._encode_and_commit(unit, payload.from_row(batch), lost=attempt - 1)

    def _encode_and_commit(self, unit: Unit, work: Payload, *, lost: int) -> Receipt:
        with self._device.turn() as idle:
            started = time.perf_counter()
            failpoints.hit("encode.start", unit.number)
            batches = Reporting(self._ledger, unit.number)
            found = self._replica.encode(unit, work.prepared, batches, lost=lost)
            failpoints.hit("encode.mid", unit.number)
            encoded = time.perf_counter()
        good = usable(found.vectors, normalized=self._replica.spec.normalized)
        receipt = commit(self._store, assemble(self._order, unit, work, found, good), self._order.plan_id)
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
