"""Which files make up a corpus, how they are named, and what is said where there are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest

from pipeline.corpus import CorpusFiles
from pipeline.exceptions import ConfigError, SourceMissingError, SourceReadError, TransientStorageError
from pipeline.records import Format


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'{"text": "a"}\n')
    return folder


def paths(uri: object, file_format: str = "auto") -> list[str]:
    return [source.path for source in CorpusFiles(str(uri)).discover(file_format).sources]


def test_folder_is_listed_to_its_depths_in_order(tmp_path):
    make(tmp_path, "b.jsonl", "a/z.jsonl", "a/b/c.ndjson", "a.jsonl", "A.JSONL")
    assert paths(tmp_path) == paths(f"{tmp_path}/") == paths(f"file://{tmp_path}") == sorted(paths(tmp_path))
    assert paths(tmp_path) == ["A.JSONL", "a.jsonl", "a/b/c.ndjson", "a/z.jsonl", "b.jsonl"]


def test_single_file_is_named_by_itself(tmp_path):
    make(tmp_path, "a.jsonl", "b.jsonl")
    assert paths(tmp_path / "a.jsonl") == ["a.jsonl"]


def test_single_file_may_be_hidden_or_lie_in_a_hidden_folder(tmp_path):
    make(tmp_path, "_part.jsonl", ".cache/a.jsonl")
    assert paths(tmp_path / "_part.jsonl") == ["_part.jsonl"]
    assert paths(tmp_path / ".cache") == ["a.jsonl"]


def test_glob_gives_paths_relative_to_its_fixed_part(tmp_path):
    make(tmp_path, "x/dt=1/a.jsonl", "x/dt=2/b.jsonl", "x/other/c.jsonl", "x/dt=1/_hidden.jsonl")
    assert paths(f"{tmp_path}/x/dt=*/*.jsonl") == ["dt=1/a.jsonl", "dt=2/b.jsonl"]
    assert paths(f"{tmp_path}/**/[ab].jsonl") == ["x/dt=1/a.jsonl", "x/dt=2/b.jsonl"]


def test_folders_that_a_glob_matches_are_no_files(tmp_path):
    make(tmp_path, "a.jsonl", "sub/b.jsonl")
    assert paths(f"{tmp_path}/*", "jsonl") == ["a.jsonl"]


def test_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    make(tmp_path, "docs[v2]/a.jsonl", "docsv/b.jsonl")
    assert paths(tmp_path / "docs[v2]") == ["a.jsonl"]


@pytest.mark.parametrize(
    ("name", "file_format", "compression"),
    [
        ("a.jsonl", Format.JSONL, None),
        ("a.NDJSON", Format.JSONL, None),
        ("a.jsonl.gz", Format.JSONL, "gzip"),
        ("a.b.jsonl.ZST", Format.JSONL, "zstd"),
        ("a.csv", Format.CSV, None),
        ("a.TSV.gz", Format.TSV, "gzip"),
        ("a.csv.zst", Format.CSV, "zstd"),
        ("a.parquet", Format.PARQUET, None),
        ("a.pq", Format.PARQUET, None),
    ],
)
def test_format_goes_by_the_name(tmp_path, name, file_format, compression):
    (source,) = CorpusFiles(str(make(tmp_path, name))).discover().sources
    assert (source.format, source.compression) == (file_format, compression)


def test_format_of_the_job_overrides_names(tmp_path):
    make(tmp_path, "a.txt", "b.json.gz", "c")
    assert paths(tmp_path, "jsonl") == ["a.txt", "b.json.gz", "c"]


def test_hidden_names_are_left_out_and_other_formats_reported(tmp_path):
    make(tmp_path, "a.jsonl", "_SUCCESS", ".a.jsonl.crc", "_temporary/0/b.jsonl", ".git/c.jsonl", "readme.md", "d.txt")
    make(tmp_path, "_dt=2026/e.jsonl", "f.parquet.gz")
    listing = CorpusFiles(str(tmp_path)).discover()
    assert [source.path for source in listing.sources] == ["_dt=2026/e.jsonl", "a.jsonl"]
    assert listing.ignored == ["d.txt", "f.parquet.gz", "readme.md"]


def test_partitions_are_read_from_folder_names(tmp_path):
    make(tmp_path, "dt=2026-11-22/lang=a%20b/x=/plain/y=__HIVE_DEFAULT_PARTITION__/z=1.jsonl")
    (source,) = CorpusFiles(str(tmp_path)).discover().sources
    assert source.partitions == (("dt", "2026-11-22"), ("lang", "a b"), ("x", ""), ("y", None))


@pytest.mark.parametrize(
    ("names", "uri", "reason"),
    [
        ([], "none", "no such file or folder"),
        ([], "none.jsonl", "no such file or folder"),
        ([], "*.jsonl", "the pattern matches no file"),
        ([], "", "the folder holds no files"),
        (["_a.jsonl", ".b"], "", "2 files, all hidden (a part of their path starts with . or _)"),
        (
            ["a.xml", "b.txt"],
            "",
            "2 files, none ending in .parquet, .pq, .jsonl, .ndjson, .csv, .tsv; write others as Parquet",
        ),
    ],
)
def test_input_without_files_says_why(tmp_path, names, uri, reason):
    target = f"{make(tmp_path, *names)}/{uri}".rstrip("/")
    with pytest.raises(SourceMissingError) as caught:
        CorpusFiles(target).discover()
    assert str(caught.value).startswith(f"no input at {target!r}: {reason}")


@pytest.mark.s3
@pytest.mark.parametrize("name", ["", "a.jsonl", "*.jsonl"])
def test_bucket_that_is_not_there_is_named(s3_proxy, name):
    with pytest.raises(SourceMissingError, match="no such bucket: 'no-such-bucket'"):
        CorpusFiles(f"s3://no-such-bucket/corpus/{name}").discover()


@pytest.mark.s3
@pytest.mark.parametrize(
    ("variable", "value", "kind", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", None, SourceReadError, "no credentials; set them in the environment"),
        ("AWS_PROFILE", "none", SourceReadError, r"profile \(none\) could not be found"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:1", ConfigError, "Invalid endpoint"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", TransientStorageError, "EndpointConnectionError"),
    ],
)
@pytest.mark.usefixtures("impatient_s3")
def test_store_that_gives_no_listing_is_told_with_its_reason(bucket, monkeypatch, variable, value, kind, reason):
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    uri = f"s3://{bucket}/corpus/"
    with pytest.raises(kind, match=f"'{uri}'.*{reason}"):
        CorpusFiles(uri).discover()


@pytest.mark.s3
@pytest.mark.usefixtures("impatient_s3")
def test_store_that_falls_silent_is_worth_another_try(bucket, s3_client, monkeypatch):
    s3_client.put_object(Bucket=bucket, Key="a.jsonl", Body=b"{}")
    files = CorpusFiles(f"s3://{bucket}/")
    (source,) = files.discover().sources
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    type(files._fs).clear_instance_cache()
    later = CorpusFiles(files.uri)
    with pytest.raises(TransientStorageError, match=r"'a\.jsonl'"), later.open(source):
        pass


def test_pattern_that_is_none_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"'\*\*' can only be an entire path component"):
        CorpusFiles(f"{tmp_path}/data**").discover()


def test_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="no filesystem for nope://"):
        CorpusFiles("nope://somewhere/")


def test_link_to_a_file_is_followed_and_pinned_by_its_target(tmp_path):
    make(tmp_path, "real/a.jsonl")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/b.jsonl").symlink_to(tmp_path / "real/a.jsonl")
    (source,) = CorpusFiles(f"{tmp_path}/links").discover().sources
    assert (source.path, source.size) == ("b.jsonl", 14)
    assert source.etag == str((tmp_path / "real/a.jsonl").stat().st_mtime_ns)


def test_broken_link_is_an_error_not_a_file_less(tmp_path):
    make(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(SourceReadError, match=r"b\.jsonl"):
        CorpusFiles(str(tmp_path)).discover()


def test_what_only_looks_like_a_file_is_left_out(tmp_path):
    make(tmp_path, "a.jsonl", "sub/b.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path)
    listing = CorpusFiles(str(tmp_path)).discover()
    assert [source.path for source in listing.sources] == ["a.jsonl", "sub/b.jsonl"]
    assert listing.ignored == ["loop.jsonl", "pipe.jsonl"]


def test_name_that_is_not_unicode_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_bytes(b"")
    with pytest.raises(SourceReadError, match="its name is not Unicode text") as caught:
        CorpusFiles(str(tmp_path)).discover()
    str(caught.value).encode()


@pytest.mark.parametrize("uri", ["memory://corpus", "memory://corpus/", "memory://corpus/*/a.jsonl"])
def test_another_protocol_gives_the_same_paths(uri):
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/corpus/dt=1/a.jsonl", b'{"text": "a"}\n')
    files = CorpusFiles(uri)
    (source,) = files.discover().sources
    with files.open(source) as pinned:
        assert (source.path, pinned.file.read()) == ("dt=1/a.jsonl", b'{"text": "a"}\n')
    filesystem.rm("/corpus", recursive=True)


@pytest.fixture
def unlistable(tmp_path):
    """A folder below a corpus that nobody can list, whatever their rights: its path is longer than paths may be."""
    make(tmp_path, "a/part.jsonl")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=descriptor)
        descriptor, above = os.open("x" * 250, os.O_RDONLY, dir_fd=descriptor), descriptor
        os.close(above)
    os.close(os.open("part.jsonl", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "**/part.jsonl"])
def test_folder_that_cannot_be_listed_is_an_error_not_an_empty_one(unlistable, pattern):
    with pytest.raises(SourceReadError, match=r"it cannot be listed: .*too long"):
        CorpusFiles(f"{unlistable}/{pattern}".rstrip("/")).discover()


def test_pattern_looks_into_no_folder_that_cannot_hold_a_match(unlistable):
    assert paths(f"{unlistable}/a*/part.jsonl") == ["a/part.jsonl"]


@pytest.mark.parametrize("pattern", ["", "*/p.jsonl", "**/p.jsonl"])
def test_link_to_a_folder_is_named_as_left_out(tmp_path, pattern):
    make(tmp_path, "corpus/2023/p.jsonl", "elsewhere/p.jsonl")
    (tmp_path / "corpus/2024").symlink_to(tmp_path / "elsewhere")
    listing = CorpusFiles(f"{tmp_path}/corpus/{pattern}").discover()
    assert [source.path for source in listing.sources] == ["2023/p.jsonl"]
    assert listing.ignored == ["2024"]
    assert listing.left_out == "1 left out, for another format or as a link to a folder: '2024'"


def test_link_to_a_folder_that_cannot_hold_a_match_is_not_named(tmp_path):
    make(tmp_path, "a1/p.jsonl", "elsewhere/p.jsonl")
    (tmp_path / "b1").symlink_to(tmp_path / "elsewhere")
    listing = CorpusFiles(f"{tmp_path}/a*/p.jsonl").discover()
    assert (listing.ignored, listing.left_out) == ([], None)


def test_pattern_may_begin_at_the_root(tmp_path):
    make(tmp_path, "a.jsonl")
    first, *others = tmp_path.parts[1:]
    files = CorpusFiles(f"/{first[:-1]}?/{'/'.join(others)}/*.jsonl")
    (source,) = files.discover().sources
    assert source.path == f"{first}/{'/'.join(others)}/a.jsonl"
    with files.open(source) as pinned:
        assert pinned.file.read()


def test_impossible_pattern_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"input\.uri: .*'\*\*' can only be"):
        CorpusFiles(f"{tmp_path}/a**").discover()


def test_keys_that_differ_in_a_slash_are_two_files(bucket, s3_client):
    for key, text in (("in/a.jsonl", "one"), ("in//a.jsonl", "another")):
        s3_client.put_object(Bucket=bucket, Key=key, Body=json.dumps({"text": text}).encode())
    files = CorpusFiles(f"s3://{bucket}/in/")
    texts = {}
    for source in files.discover().sources:
        with files.open(source) as pinned:
            texts[source.path] = json.loads(pinned.file.read())["text"]
    assert texts == {"a.jsonl": "one", "/a.jsonl": "another"}
