"""Each record of CSV becomes a row or a dead letter of its own place, however files are cut; Python's `csv` judges."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from corpus.corpus_reading import Reading, examples, look, read, read_slices
from corpus.test_cutting_lines import zstd
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import InputConfig, PromptConfig
from pipeline.corpus import delimited
from pipeline.corpus.dialect import Dialect, RecordEnds
from pipeline.corpus.rows import DeadRowError
from pipeline.exceptions import ConfigError, SourceReadError, SourceSchemaError

STANDARD = Dialect(delimiter=",", quoted=True)
PACKS = [("", bytes), (".gz", gzip.compress), (".zst", zstd)]


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def cut(data: bytes, block: int, dialect: Dialect = STANDARD) -> list[bytes]:
    """Split bytes into records, fed in blocks."""
    ends = RecordEnds(dialect, 0)
    places = [0]
    for start in range(0, len(data), block):
        places += ends.feed(data[start : start + block]).tolist()
    if places[-1] < len(data):
        places.append(len(data))
    return [data[start:end] for start, end in pairwise(places)]


def python_reads(data: bytes, delimiter: str = ",") -> list[tuple[bytes, list[str]]]:
    """Return the records and fields of Python's `csv`, which takes the malformed ones, too."""
    lines = [line + "\n" for line in data.decode().split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    lines = lines if lines[-1] else lines[:-1]
    reader = csv.reader(lines, delimiter=delimiter)
    records, before = [], 0
    for fields in reader:
        records.append(("".join(lines[before : reader.line_num]).encode(), fields))
        before = reader.line_num
    return records


def fields_or_code(record: bytes) -> list[str] | str:
    try:
        return STANDARD.fields(record)
    except DeadRowError as error:
        return str(error.code)


@pytest.mark.parametrize("data", [b'"a""\n"x"y,\nb\n', b'x"",y""\n"a""\nb"\r\n""\n', b'"a"\n"b""c"\nd"e\n"\n"\n'])
def test_where_blocks_end_does_not_matter(data):
    expected = [record for record, _ in python_reads(data)]
    assert len(expected) > 1
    for size in range(1, len(data) + 1):
        for first in range(size):
            ends = RecordEnds(STANDARD, 0)
            blocks = [data[:first], *(data[start : start + size] for start in range(first, len(data), size))]
            places = [0, *(int(end) for block in blocks for end in ends.feed(block))]
            assert [data[start:end] for start, end in pairwise(places)] == expected


FRAGMENTS = ['"', '""', ",", "\n", "\r\n", "a", "\u00e9", ',"', '",', '"\n', '\n"', 'a"', '""\n']
garbage = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map(lambda parts: "".join(parts).encode())


@examples(500)
@given(data=garbage, block=st.integers(1, 9))
def test_any_bytes_are_cut_as_python_does(data, block):
    expected = python_reads(data)
    assert cut(data, block) == [record for record, _ in expected]
    for record, fields in expected:
        found = fields_or_code(record)
        if found == "BAD_CSV":
            with pytest.raises(csv.Error):
                next(csv.reader([record.decode()], strict=True))
        else:
            assert found == (fields or "EMPTY")


values = st.text(
    alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from('",\n\r\t;')
)
tables = st.lists(st.tuples(values, values, values), max_size=12)


ways = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([None, ";", "|", "^", "-", "\\", "]", " "]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "has_last_end": st.booleans(),
        "bom": st.sampled_from(["", "\ufeff"]),
    }
)
HEADER = ("text", "b\n\"'", "id")


def written(rows: list[tuple[str, ...]], comma: str, way: dict[str, Any]) -> bytes:
    sink = io.StringIO()
    delimiter, end = way["delimiter"] or comma, way["end"]
    csv.writer(sink, delimiter=delimiter, quoting=way["quoting"], lineterminator=end).writerows([HEADER, *rows])
    text = sink.getvalue() if way["has_last_end"] else sink.getvalue().removesuffix(end)
    return (way["bom"] + text).encode()


@examples(60)
@given(
    rows=tables,
    way=ways,
    suffix=st.sampled_from([".csv", ".tsv"]),
    pack=st.sampled_from(PACKS),
    block=st.sampled_from([1, 7, 50, 1 << 20]),
    count=st.integers(1, 5),
    size=st.integers(1, 60),
)
def test_what_python_writes_is_read_however_it_is_cut(tmp_path, rows, way, suffix, pack, block, count, size):
    if way["quoting"] == csv.QUOTE_MINIMAL:  # Python may leave carriage returns unquoted
        rows = [tuple(value.replace("\r", "") for value in row) for row in rows]
    data = written(rows, {".csv": ",", ".tsv": "\t"}[suffix], way)
    path = write(tmp_path / f"a{suffix}{pack[0]}", pack[1](data))
    delimiter = way["delimiter"]
    keys = {"csv": {"delimiter": delimiter}, "keep": [HEADER[1]]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block)
        inspection = look(path, rows=count, size_bytes=size, csv={"delimiter": delimiter})
        found, whole = read(path, rows=count, **keys), read(path, **keys)
        pieces = [read_slices(path, [piece], csv={"delimiter": delimiter}) for piece in inspection.slices]
    path.unlink()
    alive = [index for index, row in enumerate(rows) if row[0].strip()]
    assert found.documents.source_row == whole.documents.source_row == alive
    assert found.texts == whole.texts == [rows[index][0] for index in alive]
    assert found.ids == [rows[index][2] for index in alive]
    assert found.keep == {HEADER[1]: [rows[index][1] for index in alive]}
    assert found.dead == whole.dead == {index: "EMPTY" for index in range(len(rows)) if index not in alive}
    assert [text for piece in pieces for text in piece.texts] == found.texts
    assert sum(piece.rows for piece in inspection.slices) == len(rows)
    assert all(piece.rows <= count for piece in inspection.slices)
    assert all(piece.size_bytes <= size or piece.rows == 1 for piece in inspection.slices)
    assert inspection.enterable == [not pack[0] or index == 0 for index in range(len(inspection.slices))]


def test_slices_begin_at_records_and_end_with_the_file(tmp_path):
    data = b'\xef\xbb\xbftext,"id"\r\n"a\nb",1\r\nc,2\r\n"d"",\n",3'
    slices = look(write(tmp_path / "a.csv", data), rows=1).slices
    assert [data[piece.start : piece.end] for piece in slices] == [b'"a\nb",1\r\n', b"c,2\r\n", b'"d"",\n",3']
    assert [(piece.first_row, piece.rows) for piece in slices] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize(("suffix", "pack"), PACKS)
def test_limit_gives_the_first_rows(tmp_path, suffix, pack):
    data = b"text\n" + b"".join(b'"row\n%d"\n' % row for row in range(20)) + b'"never closed\n\n'
    slices = look(write(tmp_path / f"a.csv{suffix}", pack(data)), rows=3, limit=7).slices
    assert [piece.rows for piece in slices] == [3, 3, 1]


GOOD = b"good,1\n"


@pytest.mark.parametrize(
    ("record", "code", "reason"),
    [
        (b"\n", "EMPTY", "the line is blank"),
        (b"\r\n", "EMPTY", "the line is blank"),
        (b",2\n", "EMPTY", "the text is empty"),
        (b'"",2\n', "EMPTY", "the text is empty"),
        (b"a,b,c\n", "BAD_CSV", "3 fields, but 2 columns"),
        (b'"a\nb\n",2,c\n', "BAD_CSV", "3 fields, but 2 columns; the record has 3 lines"),
        (b"a\n", "BAD_CSV", "1 fields, but 2 columns"),
        (b'"a"b,2\n', "BAD_CSV", "text after the closing quote of field 1"),
        (b'a,"b\n\n"" c"d\n', "BAD_CSV", "text after the closing quote of field 2; the record has 3 lines"),
        (b"a\rb,2\n", "BAD_CSV", "a carriage return outside quotes in field 1"),
        (b"a,2\r\r\n", "BAD_CSV", "a carriage return outside quotes in field 2"),
        (b"a\0b,2\n", "BAD_CSV", "a NUL at byte 1 of the record"),
        (b'"a\nb\xff",2\n', "BAD_UTF8", "invalid UTF-8 at byte 4 of the record"),
        ("é,2\n".encode("latin-1"), "BAD_UTF8", "invalid UTF-8 at byte 0 of the record"),
        (b"x" * 101 + b",2\n", "TOO_LARGE", "101 bytes of text; input.max_text_bytes is 100"),
        (b"x," + b"y" * 400 + b"\n", "TOO_LARGE", "a record of 403 bytes; at most 400 are read; is a quote left open?"),
        (b'"x' + b"\n" * 400 + b'",2\n', "TOO_LARGE", "a record of 406 bytes; at most 400 are read; is a quote left"),
    ],
)
def test_record_that_cannot_be_embedded_stays_alone(tmp_path, monkeypatch, record, code, reason):
    path = write(tmp_path / "a.csv", b"text,n\n" + GOOD + record + GOOD)
    for block in (1, 7, 1 << 20):
        monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
        found = read(path, max_text_bytes=100)
        assert found.dead == {1: code}
        assert found.texts == ["good", "good"]
        assert found.documents.source_row == [0, 2]
        assert found.reasons[0].startswith(reason)


def test_cap_of_a_record_is_exact(tmp_path):
    path = write(tmp_path / "a.csv", b"text,n\nx," + b"y" * 397 + b"\nx," + b"y" * 398 + b"\n")
    assert read(path, max_text_bytes=100).dead == {1: "TOO_LARGE"}


def test_quote_within_a_field_is_text(tmp_path):
    found = read(write(tmp_path / "a.csv", 'text,n\nan 8" pipe,"1"\n "a",2\nb""c,3\n'))
    assert found.texts == ['an 8" pipe', ' "a"', 'b""c']


def test_quote_that_is_never_closed_is_dead_where_it_takes_no_other_line(tmp_path):
    for end in (b"", b"\n", b"\r\n"):
        found = read(write(tmp_path / "a.csv", b"text,n\n" + GOOD + b'a,"b' + end))
        assert found.dead == {1: "BAD_CSV"}
        assert found.reasons[0].startswith("no closing quote of field 2")


@pytest.mark.parametrize(("suffix", "pack"), PACKS)
def test_quote_that_takes_the_rest_of_the_file_is_refused_with_its_place(tmp_path, suffix, pack):
    path = write(tmp_path / f"a.csv{suffix}", pack(b"text,n\n" + GOOD * 3 + b'a,"b\n' + GOOD * 1000))
    with pytest.raises(
        SourceReadError,
        match=r"'a\.csv.*row 3, from byte 28 on, opens a quote that is never closed and takes 1001 lines; close",
    ):
        look(path, limit=4)
    assert look(path, limit=3).slices[0].rows == 3
    assert len(read(path, csv={"quoting": "none"}).texts) == 1004


def test_record_of_any_size_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 16)
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b'text\ngood\n"')
        for _ in range(64):
            file.write(b"x\n" * (1 << 18))
        file.write(b'"\ngood\n')
    tracemalloc.start()
    found = read(path, max_text_bytes=1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.texts, found.dead) == (["good", "good"], {1: "TOO_LARGE"})
    assert most < 24 << 20


@pytest.mark.parametrize(
    ("header", "column", "reason"),
    [
        (b"text,a,text\n", "text", "there are 2 columns of this name"),
        (b",text\n", "", "the header gives column 1 no name (pandas writes its index so, unless index=False); name it"),
        (b"text, \n", " ", "the header gives column 2 no name"),
        (b"\ntext\n", "*", "its first record names no columns: the line is blank"),
        (b'"text"s\n', "*", "its first record names no columns: text after the closing quote of field 1"),
        (b"text\xff\n", "*", "its first record names no columns: invalid UTF-8 at byte 4"),
        ("text,a\n".encode("utf-16-le"), "*", "its first record names no columns: a NUL at byte 1"),
        (b'"text' + b"\n" * (1 << 20), "*", "its first record, which should name the columns, is longer than 1048576"),
    ],
)
def test_header_that_does_not_name_each_column_once_is_refused(tmp_path, header, column, reason):
    path = write(tmp_path / "a.csv", header + b"a,b\n")
    with pytest.raises(SourceSchemaError) as caught:
        look(path)
    assert str(caught.value).startswith(f"column {column!r} of 'a.csv': {reason}")


@pytest.mark.parametrize(
    ("keys", "key", "reason"),
    [
        ({"text": "txt"}, "input.text", "did you mean 'text'? it has n, text, not 'txt'"),
        ({"id": "key"}, "input.id", "it has n, text, not 'key'"),
        ({"keep": {"year": "int32"}}, "input.keep", "it has n, text, not 'year'"),
        (
            {"csv": {"delimiter": ";"}},
            "input.text",
            "its header gives 'text,n'; say in input.csv what stands between fields",
        ),
    ],
)
def test_column_that_is_not_there_is_refused(tmp_path, keys, key, reason):
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path / "a.csv", b"text,n\na,1\n"), **keys)
    assert str(caught.value) == f"{key}: no such column in 'a.csv'; {reason}"


@pytest.mark.parametrize(("header", "line"), [(True, b"text,n\n"), (["text", "n"], b"")])
def test_file_of_another_width_than_the_columns_is_refused(tmp_path, header, line):
    keys = {"csv": {"header": header}}
    some = write(tmp_path / "a.csv", line + b"a,1,\n" * 99 + b"a,1\n")
    assert len(read(some, **keys).dead) == 99
    with pytest.raises(SourceSchemaError, match=r"there are 2 columns, but none of the first 100 records has 2 fields"):
        look(write(tmp_path / "a.csv", line + b"a,1,\n" * 100), **keys)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"text,n\n", b"\xef\xbb\xbftext,n"])
@pytest.mark.parametrize(("suffix", "pack"), PACKS)
def test_file_without_records_has_no_rows(tmp_path, suffix, pack, data):
    path = write(tmp_path / f"a.csv{suffix}", pack(data))
    (piece,) = look(path).slices
    assert piece.rows == 0
    assert read(path).texts == []


TSV = 'a1\tthe "first"\r\nb2\t"second\na2\t\u00e9\n'


@pytest.mark.parametrize("header", [["id", "text"], False])
def test_file_without_header_and_quoting(tmp_path, header):
    names = {"id": "id"} if header else {"text": "column2", "id": "column1"}
    for bom in ("", "\ufeff"):
        found = read(write(tmp_path / "a.tsv", bom + TSV), csv={"quoting": "none", "header": header}, **names)
        assert (found.ids, found.texts) == (["a1", "b2", "a2"], ['the "first"', '"second', "\u00e9"])


def test_carriage_returns_without_quoting_are_text(tmp_path):
    found = read(
        write(tmp_path / "a.tsv", b"a\rb\tc\r\n"), csv={"quoting": "none", "header": ["text", "b"]}, keep=["b"]
    )
    assert (found.texts, found.keep) == (["a\rb"], {"b": ["c"]})


def test_format_of_the_job_sets_the_delimiter(tmp_path):
    write(tmp_path / "a.txt", "text\tn\na,b\t1\n")
    assert read(tmp_path, format="tsv").texts == ["a,b"]


def kept(path: Path, kind: str) -> Reading:
    return read(path, keep={"n": kind})


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        ("int32", ["5", "-7", "", "2147483647"], [5, -7, None, 2**31 - 1]),
        ("int64", ["9223372036854775807"], [2**63 - 1]),
        ("float64", ["0.5", "1e300", "-2", ""], [0.5, 1e300, -2.0, None]),
        ("bool", ["true", "false", ""], [True, False, None]),
        ("string", ["", "05", "1e5"], ["", "05", "1e5"]),
    ],
)
def test_kept_values_take_their_type(tmp_path, kind, texts, values):
    path = write(tmp_path / "a.csv", "text,n\n" + "".join(f"t,{text}\n" for text in texts))
    assert kept(path, kind).keep["n"] == values


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int32", "2147483648"),
        ("int32", "1.5"),
        ("int64", "five"),
        ("int64", " 5"),
        ("float32", "1e300"),
        ("float64", "inf"),
        ("float64", "NaN"),
        ("bool", "yes"),
    ],
)
def test_value_that_does_not_fit_its_type_makes_its_row_dead(tmp_path, kind, text):
    found = kept(write(tmp_path / "a.csv", f"text,n\na,1\nb,{text}\nc,\n"), kind)
    assert found.dead == {1: "BAD_VALUE"}
    assert found.keep["n"] == [1, None]
    assert found.reasons[0].startswith(f"column 'n' is not {'double' if kind == 'float64' else found.types['n']}: ")


def test_partitions_templates_and_prompts_work_as_in_lines(tmp_path):
    write(tmp_path / "topic=sea/n=7/a.csv", "title,body,kind\nT,B,query\nU,C,\n")
    keys = {"text": "{topic} {title}: {body}", "id": "title", "keep": {"n": "int32", "topic": "string"}}
    found = read(tmp_path, prompt=PromptConfig(template="{kind}: "), **keys)
    assert (found.texts, found.ids) == (["sea T: B", "sea U: C"], ["T", "U"])
    assert found.documents.prompts == ["query: ", ": "]
    assert found.keep == {"n": [7, 7], "topic": ["sea", "sea"]}


def test_formats_may_stand_beside_each_other(tmp_path):
    write(tmp_path / "a.csv", "text,n\na,1\n")
    write(tmp_path / "b.jsonl", '{"text": "b", "n": 2}\n')
    write(tmp_path / "c.tsv", "n\ttext\n3\tc\n")
    found = kept(tmp_path, "int32")
    assert (found.texts, found.keep["n"]) == (["a", "b", "c"], [1, 2, 3])


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"delimiter": ",,"}, "write one ASCII character"),
        ({"delimiter": '"'}, "write one ASCII character"),
        ({"delimiter": "é"}, "write one ASCII character"),
        ({"header": ["a", "a"]}, "name each column once"),
        ({"header": []}, "at least 1"),
        ({"quoting": "off"}, "'standard' or 'none'"),
    ],
)
def test_dialect_that_is_none_is_refused(keys, reason):
    with pytest.raises(ValueError, match=reason):
        InputConfig(uri="a", csv=keys)
