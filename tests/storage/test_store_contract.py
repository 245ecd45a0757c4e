"""What every store promises, asked of a local disk and of S3 with the same words."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.storage import open_store
from pipeline.storage.base import check_key

HOSTILE_KEYS = [
    "",
    ".",
    "..",
    "../evil",
    "data/../../evil",
    "/etc/evil",
    "data//evil",
    "data/",
    "data/.hidden",
    "~/evil",
    "data/line\nbreak",
    "data/evil\n",
    "data\\evil",
    "data/%2e%2e",
    "data/\0evil",
    "data/ümlaut",
    "data/" + "x" * 300,
]


def test_created_object_is_read_back_whole(store):
    assert store.create("data/part-0.parquet", b"whole" * 1000)

    assert store.read("data/part-0.parquet") == b"whole" * 1000


def test_create_refuses_a_taken_key_and_keeps_its_bytes(store):
    store.create("data/part-0.parquet", b"first")

    assert not store.create("data/part-0.parquet", b"second, and longer")
    assert store.read("data/part-0.parquet") == b"first"


def test_create_of_an_empty_object_takes_its_key(store):
    assert store.create("_job/empty", b"")

    assert not store.create("_job/empty", b"late")
    assert store.read("_job/empty") == b""


def test_one_of_sixteen_racing_writers_wins(store):
    contents = [bytes([writer]) * (64 << 10) for writer in range(16)]
    together = threading.Barrier(16)

    def write(data):
        together.wait()
        return store.create("data/part-0.parquet", data)

    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(write, contents))

    assert created.count(True) == 1
    assert store.read("data/part-0.parquet") == contents[created.index(True)]


def test_absent_objects_are_none(store):
    store.create("data/part-0.parquet", b"x")

    assert store.read("data/part-1.parquet") is None
    assert store.head("data/part-1.parquet") is None
    assert store.head("data") is None


def test_head_tells_the_size_and_an_etag_that_changes_with_the_bytes(store):
    store.replace("_job/beat", b"beat 1")
    before = store.head("_job/beat")

    store.replace("_job/beat", b"beat 2")

    after = store.head("_job/beat")
    assert (before.key, before.size) == (after.key, after.size) == ("_job/beat", 6)
    assert before.etag != after.etag
    assert store.read("_job/beat") == b"beat 2"


def test_listing_is_sorted_complete_and_keeps_to_its_folder(store):
    keys = ["_job/plan.json", "data/part-2", "data/part-10", "data2/part-1", "data.json"]
    for key in keys:
        store.create(key, key.encode())

    assert [stored.key for stored in store.list("")] == sorted(keys)
    assert [(stored.key, stored.size) for stored in store.list("data")] == [("data/part-10", 12), ("data/part-2", 11)]
    assert store.list("data") == [store.head("data/part-10"), store.head("data/part-2")]
    assert store.list("nothing") == []


def test_deleted_object_is_gone_and_may_be_deleted_again(store):
    store.create("data/part-0.parquet", b"x")

    store.delete("data/part-0.parquet")
    store.delete("data/part-0.parquet")

    assert store.list("") == []


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_no_call_takes_a_key_that_could_leave_the_prefix(store, key, tmp_path):
    calls = [
        lambda: store.read(key),
        lambda: store.create(key, b"evil"),
        lambda: store.replace(key, b"evil"),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: store.list(key or "."),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a storage key"):
            call()
    assert list(tmp_path.iterdir()) == []


_SEGMENTS = st.sampled_from(["..", ".", "", "~", "data", "part-0", "a b", "\n", "-x", "_job", "x" * 150, "C:", "é"])


@settings(deadline=None, database=None)
@given(st.one_of(st.text(max_size=300), st.lists(_SEGMENTS, max_size=6).map("/".join)))
def test_a_key_is_taken_only_if_it_is_its_own_normal_form_below_the_prefix(key):
    try:
        check_key(key)
    except ValueError:
        return
    assert os.path.normpath(f"/out/{key}") == f"/out/{key}"
    assert key.isascii()
    assert key.isprintable()
    assert not any(part.startswith((".", "~", "-")) for part in key.split("/"))
    assert len(key) <= 200


@pytest.mark.s3
def test_prefix_may_be_a_whole_bucket(bucket):
    store = open_store(f"s3://{bucket}")
    store.create("data/part-0.parquet", b"x")

    assert [stored.key for stored in store.list("")] == ["data/part-0.parquet"]
    assert store.read("data/part-0.parquet") == b"x"
