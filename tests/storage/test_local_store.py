"""What only a local disk can do wrong."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.exceptions import ConfigError, InterruptedRunError, StorageError
from pipeline.storage import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


def files_below(store):
    return [path for path in Path(store.uri).rglob("*") if path.is_file()]


@contextmanager
def no_file_above(size_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_temporary_file_remains(store):
    store.create("data/part-0.parquet", b"x")
    store.create("data/part-0.parquet", b"taken")
    store.replace("_job/report.json", b"{}")

    out = Path(store.uri)
    assert sorted(files_below(store)) == [out / "_job/report.json", out / "data/part-0.parquet"]


def test_nothing_shows_under_data_before_the_link(store, monkeypatch):
    monkeypatch.setenv("EMBATCH_FAILPOINTS", "local.before_link:sleep=0.5")

    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(store.create, "data/part-0.parquet", b"x")
        while not files_below(store) and not creating.done():
            time.sleep(0.01)
        assert store.list("data") == []
        assert creating.result()

    assert [stored.key for stored in store.list("")] == ["data/part-0.parquet"]


def test_a_write_that_is_broken_off_before_the_link_leaves_nothing(store, monkeypatch):
    monkeypatch.setenv("EMBATCH_FAILPOINTS", "local.before_link:raise")

    with pytest.raises(InterruptedRunError):
        store.create("data/part-0.parquet", b"x")

    assert files_below(store) == []


def test_a_write_that_fails_half_way_leaves_nothing(store):
    with no_file_above(1 << 20), pytest.raises(StorageError, match="File too large"):
        store.create("data/part-0.parquet", bytes(2 << 20))

    assert files_below(store) == []


def test_a_file_where_the_output_folder_should_be_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    store = open_store(str(tmp_path / "out"))

    assert (store.read("_job/plan.json"), store.head("_job/plan.json")) == (None, None)
    with pytest.raises(ConfigError, match=r"output\.uri: cannot be read: Not a directory .*/out'"):
        store.list("")
    with pytest.raises(ConfigError, match=r"output\.uri: cannot be written: Not a directory .*/out/"):
        store.create("data/part-0.parquet", b"x")


def test_listing_follows_links_to_files_and_not_to_folders(store, tmp_path):
    store.create("data/a.bin", b"one")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.bin").write_bytes(b"three")
    root = Path(store.uri)
    (root / "data/b.bin").symlink_to(elsewhere / "b.bin")
    (root / "data/gone.bin").symlink_to(elsewhere / "gone.bin")
    (root / "data/folder").symlink_to(elsewhere)
    assert [(stored.key, stored.size) for stored in store.list("data")] == [("data/a.bin", 3), ("data/b.bin", 5)]
