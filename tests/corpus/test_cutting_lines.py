"""Line files are cut so that no byte and no row is lost, repeated or counted twice."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from corpus.corpus_reading import examples, look, read_slices
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import jsonl
from pipeline.exceptions import SourceReadError
from pipeline.records import Slice

lines = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"\r")), max_size=30)
contents = st.builds(lambda parts, end: b"\n".join(parts) + end, lines, st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def count_lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def parts(data: bytes, slices: list[Slice]) -> list[bytes]:
    return [data[piece.start : piece.end] for piece in slices]


@examples(150)
@given(data=contents, rows=st.integers(1, 7), size=st.integers(1, 40), block=st.integers(1, 33))
def test_slices_hold_every_byte_and_row_within_their_caps(tmp_path, data, rows, size, block):
    path = write(tmp_path / "a.jsonl", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK_BYTES", block)
        slices = look(path, rows=rows, size_bytes=size).slices
    assert b"".join(parts(data, slices)) == data
    assert [piece.rows for piece in slices] == [count_lines(part) for part in parts(data, slices)]
    assert [piece.first_row for piece in slices] == [
        sum(piece.rows for piece in slices[:index]) for index in range(len(slices))
    ]
    assert all(piece.rows <= rows for piece in slices)
    assert all(piece.size_bytes == piece.end - piece.start for piece in slices)
    assert all(piece.size_bytes <= size or piece.rows == 1 for piece in slices)


@examples(150)
@given(data=contents, rows=st.integers(1, 7), limit=st.integers(1, 40), block=st.integers(1, 33))
def test_limit_gives_the_first_rows(tmp_path, data, rows, limit, block):
    path = write(tmp_path / "a.jsonl", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK_BYTES", block)
        slices = look(path, rows=rows, limit=limit).slices
    read = b"".join(parts(data, slices))
    assert data.startswith(read)
    assert sum(piece.rows for piece in slices) == count_lines(read) == min(limit, count_lines(data))


@examples(60)
@given(data=contents, rows=st.integers(1, 7), size=st.integers(1, 40), pack=st.sampled_from([gzip.compress, zstd]))
def test_compressed_files_are_cut_like_plain_ones(tmp_path, data, rows, size, pack):
    middle = len(data) // 2
    plain = write(tmp_path / "plain.jsonl", data)
    packed = tmp_path / ("packed.jsonl.zst" if pack is zstd else "packed.jsonl.gz")
    packed.write_bytes(pack(data[:middle]) + pack(data[middle:]))
    expected, found = look(plain, rows=rows, size_bytes=size), look(packed, rows=rows, size_bytes=size)
    assert [(piece.start, piece.end, piece.rows) for piece in found.slices] == [
        (piece.start, piece.end, piece.rows) for piece in expected.slices
    ]
    assert expected.enterable == [True] * len(expected.slices)
    assert found.enterable == [True] + [False] * (len(found.slices) - 1)


def test_lines_after_a_slice_that_ends_with_its_block_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BLOCK_BYTES", 4)
    slices = look(write(tmp_path / "a.jsonl", b"1\n2\n3\n4\n5"), rows=2).slices
    assert [piece.rows for piece in slices] == [2, 2, 1]


def test_last_line_without_newline_opens_a_slice_when_the_one_before_is_full(tmp_path):
    slices = look(write(tmp_path / "a.jsonl", b"1\n2\n3"), rows=2).slices
    assert [(piece.first_row, piece.rows, piece.end) for piece in slices] == [(0, 2, 4), (2, 1, 5)]


def test_line_over_the_byte_cap_is_a_slice_of_its_own(tmp_path):
    data = b"1\n" + b"x" * 50 + b"\n2\n3\n"
    slices = look(write(tmp_path / "a.jsonl", data), size_bytes=10).slices
    assert parts(data, slices) == [b"1\n", b"x" * 50 + b"\n", b"2\n3\n"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl.gz", b""),
        ("a.jsonl.gz", gzip.compress(b"")),
        ("a.jsonl.zst", b""),
        ("a.jsonl.zst", zstd(b"")),
    ],
)
def test_empty_file_is_one_slice_without_rows(tmp_path, name, data):
    (piece,) = look(write(tmp_path / name, data)).slices
    assert (piece.rows, piece.start, piece.end) == (0, 0, 0)
    assert read_slices(tmp_path / name, [piece]).texts == []


def test_zstd_frames_may_have_skippable_ones_between(tmp_path):
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    path = write(tmp_path / "a.jsonl.zst", skippable + zstd(b"1\n") + skippable + zstd(b"2\n"))
    assert look(path).slices[0].rows == 2


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


BODY = b'{"text": "some words"}\n' * 50


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.jsonl.gz", gzip.compress(BODY)[:-4]),
        ("half.jsonl.gz", gzip.compress(BODY)[:30]),
        ("garbage.jsonl.gz", gzip.compress(BODY) + b"garbage"),
        ("crc.jsonl.gz", flipped(gzip.compress(BODY), -6)),
        ("bits.jsonl.gz", flipped(gzip.compress(BODY), 12)),
        ("second.jsonl.gz", gzip.compress(BODY) + gzip.compress(BODY)[:-1]),
        ("magic.jsonl.gz", BODY),
        ("cut.jsonl.zst", zstd(BODY)[:-4]),
        ("half.jsonl.zst", zstd(BODY)[:9]),
        ("garbage.jsonl.zst", zstd(BODY) + b"garbage"),
        ("second.jsonl.zst", zstd(BODY) + zstd(BODY)[:-1]),
        ("magic.jsonl.zst", BODY),
    ],
)
def test_damaged_compression_is_an_error_that_names_the_file(tmp_path, name, data):
    with pytest.raises(SourceReadError, match=name.replace(".", r"\.")):
        look(write(tmp_path / name, data))


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstd)])
def test_each_slice_can_be_read_alone_or_after_others(tmp_path, suffix, pack):
    data = b"".join(b'{"text": "row %d"}\n' % row for row in range(40))
    path = write(tmp_path / f"a.jsonl{suffix}", pack(data))
    slices = look(path, rows=7).slices
    alone = [read_slices(path, [piece]).texts for piece in slices]
    assert (
        [text for texts in alone for text in texts]
        == read_slices(path, slices).texts
        == [f"row {row}" for row in range(40)]
    )
    assert read_slices(path, slices[2:5:2]).texts == alone[2] + alone[4]
