"""The reader and the audit, which share no code, say the same of every row."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus.corpus_reading import examples, read
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit import csv_records
from pipeline.audit.rows import UNJUDGED, Judgement, RowJudge
from pipeline.audit.sources import InputFiles
from pipeline.config import parse_job
from pipeline.corpus import CorpusFiles, delimited
from pipeline.exceptions import SourceReadError
from pipeline.plan.document import build
from pipeline.plan.making import requested_identity
from pipeline.schema import KEEP_TYPES, output_schema

KEEP = {"n": "int32", "x": "string"}


def audit(path: Path, **keys: object) -> list[Judgement]:
    """Judge every row of a file as the audit does."""
    sections = {"input": {"uri": str(path), **keys}, "encoder": {"model": "hashing:4"}, "output": {"uri": "out"}}
    schema = output_schema({name: KEEP_TYPES[kind] for name, kind in dict(keys.get("keep", KEEP)).items()}, 4)
    judge = RowJudge(build(requested_identity(parse_job(sections)), {"encoder": {"prompt": ""}}, schema, []))
    (source,) = CorpusFiles(str(path)).discover().sources
    judgements: list[Judgement] = []
    with InputFiles(str(path), moved=False).open(source, judge) as rows:
        while chunk := rows.take(7).rows:
            judgements += map(judge.judge, chunk)
    return judgements


def assert_same(path: Path, **keys: object) -> None:
    found, judgements = read(path, **keys), audit(path, **keys)
    assert len(judgements) == len(found.texts) + len(found.dead)
    for row, code in found.dead.items():
        assert code in judgements[row].codes or code in UNJUDGED, (row, code, judgements[row])
    for row, text, row_id in zip(found.documents.source_row, found.texts, found.ids, strict=True):
        assert judgements[row] == Judgement(codes=frozenset(), text=text, row_id=row_id)


def nested(depth: int) -> bytes:
    return b'{"text": "a", "n": null, "y": ' + b"[" * depth + b"]" * depth + b"}"


HOSTILE = [
    b"",
    b"\xef\xbb\xbf{}",
    b'{"text": "a", "text": "b"}',
    b'{"text": "a", "id": 1e999}',
    b'{"text": "a", "x": 1e999}',
    b'{"text": "a", "x": "\\ud800"}',
    b'{"text": "a", "id": {"\\ud800": [1.0, true]}}',
    b'{"text": "\\ud83d\\ude00", "id": 1.0, "n": 1.5}',
    b'{"text": "a", "n": true}',
    b'{"text": "a", "n": "5"}',
    b'{"text": "\xc3\xa9", "other": "\xff"}',
    b'{"text": " \\u00a0\\u2003 "}',
    b'{"text": "' + b"\xc3\xa9" * 51 + b'"}',
    b'{"text": "a", "y": "' + b"x" * 1000 + b'"}',
    *map(nested, (1, 400, 498, 499, 500, 501, 900, 980, 990, 1000, 5000)),
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("\ud800"),
    lambda child: st.lists(child, max_size=2) | st.dictionaries(st.text(max_size=2), child, max_size=2),
    max_leaves=4,
)
records = st.dictionaries(st.sampled_from(["text", "id", "n", "x", "y"]), values)


@examples(100)
@given(
    lines=st.lists(
        st.sampled_from(HOSTILE)
        | st.binary(max_size=12).map(lambda line: line.replace(b"\n", b""))
        | records.map(lambda record: json.dumps(record).encode()),
        max_size=12,
    ),
    end=st.sampled_from([b"", b"\n", b"\r\n"]),
)
def test_lines_are_judged_alike(tmp_path, lines, end):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "first", "x": ""}\n' + b"\n".join(lines) + end)
    assert_same(path, keep=KEEP, max_text_bytes=100)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_line_is_judged_alike(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "first", "x": ""}\n' + line + b"\n")
    assert_same(path, keep=KEEP, max_text_bytes=1000 if b"[[" in line else 100)


CSV = [
    b'"',
    b",",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"a",
    b" ",
    b"7",
    b"a,7,b,c\n",
    b"x" * 110,
    b"x" * 401,
]


@examples(150)
@given(
    pieces=st.lists(st.sampled_from(CSV), max_size=30),
    quoting=st.sampled_from(["standard", "none"]),
    header=st.sampled_from([True, False, ["text", "n", "x", "id"]]),
    suffix=st.sampled_from([".csv", ".tsv"]),
    block=st.sampled_from([3, 7, 64, 1 << 20]),
)
def test_records_are_judged_alike(tmp_path, pieces, quoting, header, suffix, block):
    path = tmp_path / f"a{suffix}"
    names = b'text,n,x,"id"\n' if header is True else b"first,1,c,d\n"
    data = b"\xef\xbb\xbf" + names + b"".join(pieces)
    path.write_bytes(data.replace(b",", b"\t") if suffix == ".tsv" else data)
    columns = {"text": "column1", "id": "column4", "keep": {}} if header is False else {"keep": KEEP}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block)
        patch.setattr(csv_records, "READ_BYTES", block)
        with suppress(SourceReadError):  # a quote that is never closed
            assert_same(path, csv={"quoting": quoting, "header": header}, max_text_bytes=100, **columns)
    path.unlink()


STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.large_binary(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kind", STRINGS, ids=str)
@pytest.mark.parametrize("ids", [pa.int64(), pa.uint8(), pa.float64(), pa.string_view(), pa.null()], ids=str)
def test_columns_are_judged_alike(tmp_path, kind, ids):
    texts = pa.array(["a", "", None, "é" * 51, " "]).cast(kind)
    numbers = pa.nulls(5) if ids == pa.null() else pa.array([1, 2, None, 4, 5]).cast(pa.string()).cast(ids)
    pq.write_table(pa.table({"text": texts, "id": numbers, "n": [1] * 5, "x": texts}), tmp_path / "a.parquet")
    assert_same(tmp_path / "a.parquet", keep=KEEP, max_text_bytes=100)
