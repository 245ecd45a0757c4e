"""The cache of receipts: it spares requests where it fits and is passed over where it does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.checkpoint.commits import commit, committed
from pipeline.checkpoint.entries import from_columns, to_columns
from pipeline.checkpoint.receipts import FOLDER, ReceiptLog, load
from pipeline.exceptions import DamagedOutputError
from pipeline.fingerprint import canonical_json, sha256
from pipeline.records import Effort
from pipeline.storage import open_store


class Asked:
    """A store that remembers what was read."""

    def __init__(self, store):
        self._store, self.keys = store, []
        self.list = store.list

    def read(self, key):
        self.keys.append(key)
        return self._store.read(key)


@pytest.fixture
def receipts(store, make_shard, plan_id):
    """Commit three units; their receipts by unit."""
    return {unit: commit(store, make_shard(unit, dead=unit % 2), plan_id) for unit in range(3)}


def batches(store):
    return [stored.key.removeprefix(f"{FOLDER}/").rpartition("-")[0] for stored in store.list(FOLDER)]


def test_log_writes_batches_and_the_rest_on_flush(store, receipts):
    log = ReceiptLog(store, run=4, batch=2)
    for receipt in receipts.values():
        log.add(receipt)
    assert batches(store) == ["000004-000000"]

    log.flush()
    log.flush()

    assert batches(store) == ["000004-000000", "000004-000001"]


def test_receipts_without_a_cache_come_from_the_shards(store, receipts, plan_id):
    assert load(store, plan_id, committed(store, plan_id)) == receipts


def test_cached_receipt_of_another_size_gives_way_to_the_shard(store, receipts, plan_id):
    log = ReceiptLog(store, run=1, batch=10)
    log.add(replace(receipts[0], size_bytes=receipts[0].size_bytes + 1, rows_ok=1000))
    log.flush()

    assert load(store, plan_id, committed(store, plan_id)) == receipts


def test_cached_receipt_of_a_unit_without_a_shard_is_passed_over(store, receipts, plan_id):
    log = ReceiptLog(store, run=1, batch=10)
    log.add(receipts[2])
    log.flush()
    store.delete(receipts[2].key)

    assert load(store, plan_id, committed(store, plan_id)).keys() == {0, 1}


def test_cached_receipts_are_those_of_the_shards(store, receipts, plan_id):
    log = ReceiptLog(store, run=1, batch=10)
    effort = Effort(seconds={"encode": 1.5}, batch_tokens=6, batch_room=8, lengths=[0, 0, 2], host="here")
    for receipt in receipts.values():
        log.add(replace(receipt, effort=effort))
    log.flush()

    (batch,) = store.list(FOLDER)
    cached = from_columns(json.loads(store.read(batch.key)))

    assert {receipt.unit: receipt for receipt in cached} == receipts
    asked = Asked(store)
    assert load(asked, plan_id, committed(store, plan_id)) == receipts
    assert asked.keys == [batch.key]


def test_receipts_from_before_compact_vectors_are_read(receipts):
    columns = to_columns(list(receipts.values()))
    for later in ("clipped", "scripts", "calibration"):
        del columns[later]

    assert from_columns(columns) == list(receipts.values())


@pytest.mark.parametrize("damage", [b'{"unit": 0', b"\xff\xfe", b"[]", b'{"unit":[0]}', b""])
def test_damaged_cache_gives_way_to_the_shards(store, receipts, plan_id, damage):
    store.create(f"{FOLDER}/000001-000000-{sha256(damage)[:12]}.json", damage)

    assert load(store, plan_id, committed(store, plan_id)) == receipts


def test_a_flipped_bit_in_the_cache_gets_into_no_manifest(store, receipts, plan_id):
    log = ReceiptLog(store, run=1, batch=10)
    log.add(receipts[0])
    log.flush()
    (batch,) = store.list(FOLDER)
    written = json.loads(store.read(batch.key))
    store.replace(batch.key, canonical_json({**written, "rows_ok": [written["rows_ok"][0] ^ 1]}))

    assert load(store, plan_id, committed(store, plan_id)) == receipts


def test_shard_that_vanishes_after_the_listing_is_damage(store, receipts, plan_id):
    present = committed(store, plan_id)
    store.delete(receipts[1].key)

    with pytest.raises(DamagedOutputError, match=receipts[1].key):
        load(store, plan_id, present)


@pytest.mark.s3
def test_only_shards_that_are_not_cached_are_read(s3_uri, faults, make_shard, plan_id):
    store = open_store(s3_uri)
    receipts = {unit: commit(store, make_shard(unit), plan_id) for unit in range(3)}
    log = ReceiptLog(store, run=1, batch=2)
    log.add(receipts[0])
    log.add(receipts[2])
    faults.clear()

    assert load(store, plan_id, committed(store, plan_id)) == receipts
    assert [line.key for line in faults.log("GET", "data/")] == [f"jobs/out/{receipts[1].key}"]
