"""The commit of one shard: exactly once, whatever replies are lost and whoever else writes."""

from __future__ import annotations

import io
import logging
import math

import pyarrow.parquet as pq
import pytest

from pipeline.checkpoint.commits import commit, committed, read_receipt
from pipeline.exceptions import ConflictError, StorageError


def test_commit_publishes_the_shard_and_its_dead_letters(store, make_shard, plan_id):
    made = make_shard(7, dead=1)

    receipt = commit(store, made, plan_id)

    assert receipt == made.receipt == read_receipt(store, made.receipt.key, plan_id)
    assert (receipt.unit, receipt.rows_in, receipt.rows_ok, receipt.rows_dead) == (7, 3, 2, 1)
    assert store.read(receipt.key) == made.data
    assert store.read(receipt.dead_key) == made.dead_data
    assert pq.read_table(io.BytesIO(store.read(receipt.key))).column("source_row").to_pylist() == [21, 22]


def test_second_commit_of_equal_bytes_gives_the_same_receipt(store, make_shard, plan_id, caplog):
    first = commit(store, make_shard(7, dead=1), plan_id)
    before = store.list("")

    assert commit(store, make_shard(7, dead=1), plan_id) == first

    assert store.list("") == before
    assert "nondeterminism" not in caplog.text


def test_second_commit_of_other_bytes_gives_the_receipt_of_the_first(store, make_shard, plan_id, caplog):
    first = make_shard(7, value=0.5)
    commit(store, first, plan_id)

    with caplog.at_level(logging.WARNING):
        receipt = commit(store, make_shard(7, value=0.25), plan_id)

    assert receipt == first.receipt
    assert store.read(receipt.key) == first.data
    assert f"nondeterminism unit=7 committed={first.receipt.sha256}" in caplog.text


def test_shard_of_another_plan_under_the_key_is_a_conflict(store, make_shard, plan_id):
    key = make_shard(7).receipt.key
    foreign = make_shard(7, plan_id="f" * 64, key=key)
    store.create(key, foreign.data)

    with pytest.raises(ConflictError, match=key):
        commit(store, make_shard(7), plan_id)

    assert store.read(key) == foreign.data


def test_listing_counts_only_shards_of_the_plan(store, make_shard, plan_id):
    commit(store, make_shard(7), plan_id)
    commit(store, make_shard(8, plan_id="f" * 64), "f" * 64)
    store.create("data/part-00000009.parquet", b"foreign")

    assert committed(store, plan_id) == {7: store.head(make_shard(7).receipt.key)}


def test_shard_that_is_taken_and_then_gone_is_a_conflict(store, make_shard, plan_id):
    class DeletesBetween:
        """A store in which something else deletes right after a create was refused."""

        uri = store.uri
        read = store.read

        def create(self, key, data):
            created = store.create(key, data)
            store.delete(key)
            return created

    commit(store, make_shard(7), plan_id)

    with pytest.raises(ConflictError, match="something else deletes"):
        commit(DeletesBetween(), make_shard(7), plan_id)


@pytest.mark.s3
def test_commit_whose_reply_is_lost_succeeds_with_its_own_receipt(s3_store, faults, make_shard, plan_id, caplog):
    made = make_shard(7, dead=1)
    faults.inject("drop_reply", "PUT", "data/part-")
    faults.inject("drop_reply", "PUT", "_dead/part-")

    assert commit(s3_store, made, plan_id) == made.receipt

    assert [line.status for line in faults.log("PUT", "data/")] == [200, 412]
    assert s3_store.read(made.receipt.dead_key) == made.dead_data
    assert "nondeterminism" not in caplog.text


@pytest.mark.s3
def test_puts_of_a_dead_attempt_that_arrive_after_another_commit_change_nothing(s3_store, faults, make_shard, plan_id):
    late = faults.inject("hold", "PUT", "data/part-", times=math.inf)
    with pytest.raises(StorageError):
        commit(s3_store, make_shard(7, value=0.25), plan_id)
    late.times = 0
    made = make_shard(7, value=0.5)
    commit(s3_store, made, plan_id)

    assert set(faults.release(late)) == {412}

    assert s3_store.read(made.receipt.key) == made.data


@pytest.mark.s3
def test_put_of_a_dead_attempt_that_arrives_first_is_the_commit(s3_store, faults, make_shard, plan_id):
    dead, living = make_shard(7, value=0.25), make_shard(7, value=0.5)
    late = faults.inject("hold", "PUT", "data/part-", times=math.inf)
    with pytest.raises(StorageError):
        commit(s3_store, dead, plan_id)
    late.times = 0
    assert faults.release(late)[0] == 200

    assert commit(s3_store, living, plan_id) == dead.receipt

    assert s3_store.read(dead.receipt.key) == dead.data
