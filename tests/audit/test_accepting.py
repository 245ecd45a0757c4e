"""The audit accepts what the writer makes, and nothing less."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_outputs import (
    DEAD_LINES,
    embed,
    job,
    lines,
    write_corpus,
)

from pipeline import plan as plans
from pipeline.audit import verify
from pipeline.audit.findings import Findings
from pipeline.exceptions import ConfigError


def test_accepts_what_the_writer_makes(pristine):
    report = pristine.verify()
    assert report.findings == ()
    assert (report.complete, report.units, report.rows) == (True, 11, 131)
    assert report.dead_by_code == {code: len(several) for code, several in DEAD_LINES.items()} | {"EMPTY": 5}
    head = json.loads((pristine.output / "_job/manifest.json").read_bytes())
    assert report.content_digest == head["content_digest"]


@pytest.mark.parametrize(
    "sections",
    [
        {"input": {"text": "{title}: {n}/{body}", "id": "title", "keep": ["n", "score", "parts", "dt"]}},
        {
            "input": {"text": "body", "keep": ["dt"]},
            "encoder": {"model": "hashing:3", "prompt": {"template": "in {dt}: "}},
        },
        {"input": {"text": "body", "id": "n"}, "encoder": {"model": "hashing:3", "prompt": {"column": "title"}}},
        {
            "input": {"text": "body"},
            "encoder": {"model": "hashing:3", "prompt": {"column": "title", "vocabulary": ["t1", "t5", "t10", ""]}},
        },
        {
            "input": {"text": "body"},
            "encoder": {"model": "hashing:3", "prompt": {"template": "{title}: {n}", "vocabulary": ["t1: 1", "t2: 2"]}},
        },
        {"input": {"text": "body"}, "encoder": {"model": "hashing:64", "truncate_dim": 5}},
        {"input": {"text": "body", "limit": 7}, "encoder": {"model": "hashing:3", "prompt": "search: "}},
        {"input": {"text": "body", "limit": 10}},
        {"input": {"text": "body", "limit": 99}},
    ],
)
def test_accepts_every_way_to_make_rows(tmp_path, monkeypatch, sections):
    for day, first in (("2026-01-01", 0), ("__HIVE_DEFAULT_PARTITION__", 5), ("2026-01-03", 10)):
        columns = {
            "title": pa.array([f"t{row}" if row % 3 else None for row in range(first, first + 5)]),
            "n": pa.array(range(first, first + 5), pa.int16()),
            "score": pa.array([float("nan"), 0.5, None, 1.0, float("inf")]),
            "parts": pa.array([["a"], [], None, ["b", None], ["c"]]),
            "body": pa.array([b"one", b"two", b"\xff", None, b"five"], pa.large_binary()),
        }
        (tmp_path / f"corpus/dt={day}").mkdir(parents=True)
        pq.write_table(pa.table(columns), tmp_path / f"corpus/dt={day}/part.parquet")
    output = str(tmp_path / "output")
    options = {**sections, "input": {"keep": [], **sections["input"]}}
    monkeypatch.chdir(tmp_path)
    plan = embed(job(Path("corpus/dt=*/*.parquet"), Path(output), **options))
    report = verify(output)
    assert report.findings == ()
    assert report.rows + sum(report.dead_by_code.values()) == plan.rows > 0


def test_accepts_rows_set_aside_because_their_file_changed(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")

    def rewrite(unit: int) -> None:
        if unit == 2:
            (corpus / "a.jsonl").write_bytes(lines(0, 3))

    embed(job(corpus, tmp_path / "output"), skip_changed=True, before_unit=rewrite)
    report = verify(str(tmp_path / "output"))
    assert report.findings == ()
    assert report.dead_by_code["SOURCE_CHANGED"] == 22


@pytest.mark.s3
def test_audits_an_output_and_an_input_on_s3(tmp_path, bucket, s3_client):
    corpus = write_corpus(tmp_path / "corpus")
    for path in corpus.rglob("*.*"):
        key = f"corpus/{path.relative_to(corpus).as_posix()}"
        s3_client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    plan = embed(job(f"s3://{bucket}/corpus/", f"s3://{bucket}/out"))
    assert verify(f"s3://{bucket}/out").findings == ()
    s3_client.delete_object(Bucket=bucket, Key=f"out/{plans.shard_key(plan.plan_id, 2)}")
    s3_client.put_object(Bucket=bucket, Key="out/data/more", Body=b"?")
    assert verify(f"s3://{bucket}/out").findings == (
        f"{plans.shard_key(plan.plan_id, 2)}: unit 2 has no shard",
        "data/more: is not a shard of this plan",
    )


def test_takes_an_input_whose_name_looks_like_a_pattern(tmp_path):
    corpus = write_corpus(tmp_path / "corpus[1]")
    embed(job(corpus, tmp_path / "output"))
    assert verify(str(tmp_path / "output")).findings == ()


def test_takes_an_output_without_manifest_only_when_told(made):
    (made.output / "_job/manifest.json").unlink()
    made.shard(4).unlink()
    strict, lenient = made.verify(), made.verify(allow_partial=True)
    assert strict.findings == (
        "the output is not complete: it has no _job/manifest.json",
        f"{made.name(4)}: unit 4 has no shard",
    )
    assert lenient.findings == ()
    assert (lenient.complete, lenient.units, lenient.content_digest) == (False, 10, None)


def test_needs_a_plan(tmp_path):
    with pytest.raises(ConfigError, match="holds no embatch output"):
        verify(str(tmp_path))


def test_needs_the_input_unless_told_otherwise(made):
    shutil.rmtree(made.corpus)
    with pytest.raises(ConfigError, match="nothing is at"):
        made.verify()
    assert made.verify(check_input=False).findings == ()


def test_counts_what_it_does_not_list():
    findings = Findings()
    findings.extend(map(str, range(105)))
    assert findings.sentences()[-2:] == ("99", "and 5 more findings")


TEXT = st.text(st.characters(exclude_categories=[]) | st.sampled_from(" \n\u3000"), max_size=12)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(1e999)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
COLUMNS = ("id", "text", "title", "section", "year")
RECORD = st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, JSON | TEXT)).map(
    lambda row: json.dumps(row).encode()
)
LINE = RECORD | st.builds(lambda line, at: line[:at], RECORD, st.integers(0, 20)) | st.binary(max_size=40)


@pytest.mark.parametrize(
    "sections",
    [
        {"input": {"max_text_bytes": 20}},
        {
            "input": {
                "text": "{title}:{text}",
                "keep": {"year": "float32", "title": "string", "y": "int32"},
                "max_text_bytes": 30,
            }
        },
        {"encoder": {"model": "hashing:2", "prompt": {"template": "{title} of {section} "}}},
        {
            "input": {"id": "title", "keep": {"year": "bool"}},
            "encoder": {"model": "hashing:2", "prompt": {"column": "id"}},
        },
    ],
)
@settings(max_examples=30, deadline=None)
@given(several=st.lists(LINE, min_size=1, max_size=40))
def test_agrees_with_the_reader_on_any_line(sections, several):
    first = json.dumps({**dict.fromkeys(COLUMNS, "x"), "year": None}).encode()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "input/y=7").mkdir(parents=True)
        Path(folder, "input/y=7/a.jsonl").write_bytes(b"\n".join([first, *several]))
        embed(job(f"{folder}/input", f"{folder}/output", **sections))
        assert verify(f"{folder}/output").findings == ()
