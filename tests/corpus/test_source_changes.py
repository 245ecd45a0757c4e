"""Rows are handed out only of the very file the plan saw; a file changed meanwhile is called changed, not broken."""

from __future__ import annotations

import errno
import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig
from pipeline.corpus import CorpusFiles, RowRule, reader_of
from pipeline.corpus.documents import Collector
from pipeline.corpus.reader import CutLimits
from pipeline.exceptions import SourceChangedError, SourceReadError
from pipeline.records import Slice

NAMES = ("a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet")
ROWS = 20_000


def write(folder: Path, name: str, word: str, rows: int = ROWS) -> Path:
    """Write rows of random length, more than one buffer of a reader holds."""
    path = folder / name
    texts = [f"{word} {row} {os.urandom(40).hex()}" for row in range(rows)]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="none")
    elif name.endswith(".csv"):
        path.write_text("text\n" + "".join(f"{text}\n" for text in texts))
    else:
        data = "".join(f'{{"text": "{text}"}}\n' for text in texts).encode()
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    return path


class Reading:
    """A planned file whose slices of 1000 rows are read one by one."""

    def __init__(self, folder: Path | str) -> None:
        self.files = CorpusFiles(str(folder))
        (self.source,) = self.files.discover().sources
        config = InputConfig(uri=str(folder))
        self.reader = reader_of(self.source, config)
        limits = CutLimits(rows=1000, size_bytes=1 << 30)
        self.planned = self.reader.inspect(self.files, self.source, limits).slices
        self.collect = Collector(RowRule(config), {})

    def slices(self) -> Iterator[Slice]:
        return self.reader.read(CorpusFiles(self.files.uri), iter(self.planned), self.collect)


def rewrite_in_place(path: Path) -> None:
    """Change bytes, not the size."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(data) // 3)
        file.write(bytes(reversed(data[len(data) // 3 : -1000])))
    os.utime(path, ns=(1, 1))


CHANGES = {
    "appended": lambda path: path.open("ab").write(b'{"text": "more"}\n'),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "rewritten": rewrite_in_place,
    "replaced": lambda path: write(path.parent, path.name, "other"),
    "touched": lambda path: os.utime(path, ns=(1, 1)),
    "removed": os.remove,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_file_changed_after_the_plan_gives_no_rows(tmp_path, name, change):
    path = write(tmp_path, name, "planned", rows=1500)
    reading = Reading(tmp_path)
    CHANGES[change](path)
    with pytest.raises(SourceChangedError, match=path.name):
        next(reading.slices())
    assert reading.collect.documents.texts == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_file_changed_while_it_is_read_is_noticed_before_the_next_slice_is_handed_out(tmp_path, name, change):
    path = write(tmp_path, name, "planned")
    reading = Reading(tmp_path)
    slices = reading.slices()
    next(slices)
    assert len(reading.collect.documents.texts) == 1000
    CHANGES[change](path)
    with pytest.raises(SourceChangedError, match=path.name):
        list(slices)


def test_change_is_described(tmp_path):
    path = write(tmp_path, "a.jsonl", "planned", rows=1)
    reading = Reading(tmp_path)
    path.write_bytes(b"{}\n")
    with pytest.raises(SourceChangedError) as caught:
        next(reading.slices())
    assert caught.value.changes == [f"a.jsonl: size {reading.source.size} -> 3"]


def test_folder_in_place_of_a_file_and_file_in_place_of_a_folder_are_changes(tmp_path):
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "a.jsonl", "planned", rows=1)
    reading = Reading(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SourceChangedError):
        next(reading.slices())
    path.rmdir()
    (tmp_path / "sub").rmdir()
    (tmp_path / "sub").write_text("a file")
    with pytest.raises(SourceChangedError, match="is gone"):
        next(reading.slices())


def test_object_replaced_on_another_protocol_is_noticed():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/changes/a.jsonl", b'{"text": "a"}\n')
    reading = Reading("memory://changes")
    filesystem.pipe("/changes/a.jsonl", b'{"text": "b"}\n')
    with pytest.raises(SourceChangedError, match=r"a\.jsonl: rewritten"):
        next(reading.slices())
    filesystem.rm("/changes", recursive=True)


@pytest.mark.parametrize("name", [*NAMES, "a.jsonl.zst"])
@pytest.mark.parametrize("surplus", [{"rows": 11}, {"first_row": 900, "start": 1 << 30, "end": 1 << 31}])
def test_plan_of_rows_that_an_unchanged_file_does_not_have_is_a_read_error(tmp_path, name, surplus):
    path = write(tmp_path, name, "planned", rows=10)
    if name.endswith(".zst"):
        path.write_bytes(pa.compress(path.read_bytes(), codec="zstd", asbytes=True))
    reading = Reading(tmp_path)
    reading.planned = [replace(reading.planned[0], **surplus)]
    with pytest.raises(SourceReadError, match="planned"):
        next(reading.slices())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_plan_whose_rows_end_elsewhere_in_an_unchanged_file_is_a_read_error(tmp_path, name):
    write(tmp_path, name, "planned", rows=10)
    reading = Reading(tmp_path)
    reading.planned = [replace(reading.planned[0], rows=9)]
    with pytest.raises(SourceReadError, match=r"rows 0 to 8 end at byte \d+, planned \d+"):
        next(reading.slices())


def test_disk_that_fails_is_a_read_error_that_names_the_file(tmp_path):
    write(tmp_path, "a.jsonl", "planned", rows=1)
    reading = Reading(tmp_path)
    with pytest.raises(SourceReadError, match=r"'a\.jsonl': \[Errno 5\]"), reading.files.open(reading.source):
        raise OSError(errno.EIO, "the disk fails")


def test_path_that_cannot_be_looked_at_is_a_read_error(tmp_path):
    write(tmp_path, "a.jsonl", "planned", rows=1)
    reading = Reading(tmp_path)
    with pytest.raises(SourceReadError, match="File name too long"):
        reading.files.pin("x" * 300)
