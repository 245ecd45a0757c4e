"""The manifest: created last and once, equal to what it lists, and never replaced."""

from __future__ import annotations

import pytest

from pipeline.checkpoint import manifest
from pipeline.exceptions import ConflictError, DamagedOutputError
from pipeline.records import Receipt
from pipeline.storage import open_store


@pytest.fixture
def receipts(make_shard):
    """The receipts of five units, some with dead letters."""
    return [make_shard(unit, dead=unit % 2).receipt for unit in range(5)]


def publish(store, plan_id, receipts):
    return manifest.publish(store, plan_id, receipts, single_writer=False)


def test_entries_and_totals_come_back_as_published(store, plan_id, receipts):
    publish(store, plan_id, receipts)

    head = manifest.load_head(store)

    assert manifest.load_entries(store, head) == receipts
    assert (head["plan_id"], head["units"], head["rows_in"], head["rows_ok"]) == (plan_id, 5, 15, 13)
    assert head["dead_by_code"] == {"BAD_JSON": 2}


def test_publishing_again_changes_nothing(store, plan_id, receipts):
    head = publish(store, plan_id, receipts)
    before = store.list("")

    assert publish(store, plan_id, receipts) == head

    assert store.list("") == before


def test_a_manifest_with_other_content_is_a_conflict(store, plan_id, receipts, make_shard):
    head = publish(store, plan_id, receipts)

    with pytest.raises(ConflictError, match=manifest.HEAD):
        publish(store, plan_id, [*receipts[:4], make_shard(4, value=0.25).receipt])

    assert manifest.load_head(store) == head


def test_units_are_split_into_parts(store, plan_id, receipts, monkeypatch):
    monkeypatch.setattr(manifest, "PART_UNITS", 2)

    head = publish(store, plan_id, receipts)

    assert [part["key"][:24] for part in head["parts"]] == [f"_job/manifest/part-0000{part}" for part in range(3)]
    assert manifest.load_entries(store, head) == receipts


def test_an_output_without_units_has_a_manifest_too(store, plan_id):
    head = publish(store, plan_id, [])

    assert (head["units"], manifest.load_entries(store, head)) == (0, [])


def test_no_manifest_means_not_complete(store):
    assert manifest.load_head(store) is None


@pytest.mark.parametrize("data", [b"", b"not JSON", b"[1]", b"{}", b'{"format":2}'])
def test_what_is_no_manifest_is_damage(store, data):
    store.create(manifest.HEAD, data)

    with pytest.raises(DamagedOutputError, match=manifest.HEAD):
        manifest.load_head(store)


def test_missing_or_altered_parts_are_damage(store, plan_id, receipts):
    head = publish(store, plan_id, receipts)
    part = head["parts"][0]["key"]

    store.replace(part, store.read(part) + b"x")
    with pytest.raises(DamagedOutputError, match="altered"):
        manifest.load_entries(store, head)

    store.delete(part)
    with pytest.raises(DamagedOutputError, match="missing"):
        manifest.load_entries(store, head)


def test_empty_texts_are_dead_but_not_failed():
    receipt = Receipt(
        unit=0,
        key="",
        size_bytes=0,
        sha256="",
        content_digest="",
        rows_in=9,
        rows_ok=4,
        tokens=0,
        truncated=0,
        chars=0,
        chars_lost=0,
        dead_by_code={"BAD_JSON": 2, "EMPTY": 3},
    )

    totals = manifest.total([receipt, receipt])

    assert (totals.rows_dead, totals.rows_failed) == (10, 4)


@pytest.mark.s3
def test_lost_replies_do_not_make_the_manifest_conflict_with_itself(s3_uri, faults, plan_id, receipts):
    store = open_store(s3_uri)
    faults.inject("drop_reply", "PUT", "_job/manifest/part")
    faults.inject("drop_reply", "PUT", "_job/manifest.json")

    head = publish(store, plan_id, receipts)

    assert manifest.load_head(store) == head
    assert [line.status for line in faults.log("PUT")] == [200, 412, 200, 412]
