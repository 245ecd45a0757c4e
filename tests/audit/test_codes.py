"""The audit of compact vectors: it takes what the writer makes, and finds codes that stand for something else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_outputs import Made, embed, job, rebuild, replace_column, write_corpus

from pipeline import read_embeddings
from pipeline.calibration import from_json
from pipeline.checkpoint import calibrations
from pipeline.config import JobConfig, parse_job

KINDS = {"float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("codes")
    corpus = write_corpus(folder / "corpus")
    outputs = {kind: folder / kind for kind in ("float32", *KINDS)}
    plans = {kind: embed(compact(job(corpus, output), kind)) for kind, output in outputs.items()}
    return {kind: Made(corpus=corpus, output=outputs[kind], plan=plan) for kind, plan in plans.items()}


def compact(config: JobConfig, kind: str) -> JobConfig:
    values = config.model_dump()
    values["output"]["vectors"] = kind
    return parse_job(values)


@pytest.fixture
def made(pristine: dict[str, Made], tmp_path: Path, request: pytest.FixtureRequest) -> Made:
    """A copy of the output of the kind that a test asks for, int8 where it does not say."""
    one = pristine[getattr(request, "param", "int8")]
    shutil.copytree(one.output, tmp_path / "output")
    return replace(one, output=tmp_path / "output")


def embeddings(made: Made, *, decode: bool) -> pa.ChunkedArray:
    return pa.concat_tables(read_embeddings(str(made.output), ["embedding"], decode=decode))["embedding"]


@pytest.mark.parametrize("kind", KINDS)
def test_accepts_what_the_writer_makes(pristine, kind):
    report = pristine[kind].verify()
    assert report.findings == ()
    assert report.rows == 131


@pytest.mark.parametrize(("kind", "off"), [("float16", 5e-4), ("int8", 5e-3), ("binary", 2.0)])
def test_a_reader_gets_the_codes_or_what_they_stand_for(pristine, kind, off):
    codes, floats = (embeddings(pristine[kind], decode=decode) for decode in (False, True))
    true = embeddings(pristine["float32"], decode=True)
    assert codes.type.value_type == KINDS[kind]
    assert floats.type == true.type
    assert true.equals(embeddings(pristine["float32"], decode=False))
    ours, theirs = (column.combine_chunks().flatten().to_numpy() for column in (floats, true))
    assert np.abs(ours - theirs).max() < off
    assert ((ours > 0) == (theirs > 0)).mean() > 0.99


@pytest.mark.parametrize("made", KINDS, indirect=True)
def test_finds_a_vector_that_is_not_of_its_text(made):
    def swap(table: pa.Table) -> pa.Table:
        return replace_column(table, "embedding", table["embedding"].take([1, 0, *range(2, len(table))]))

    rebuild(made, 6, swap)
    wrong = "c.jsonl.zst row 0 has a vector that is not of its text (and 1 more rows)"
    assert made.verify().findings == (f"{made.name(6)}: {wrong}",)


@pytest.mark.parametrize(
    ("code", "finding"),
    [(-128, "a code is below -127, which is never written"), (80, "the vector has length")],
)
def test_finds_codes_that_no_vector_gives(made, code, finding):
    def spoil(table: pa.Table) -> pa.Table:
        kind = table["embedding"].type
        values = table["embedding"].combine_chunks().flatten().to_numpy().copy()
        values[16:32] = code
        return replace_column(table, "embedding", pa.FixedSizeListArray.from_arrays(values, type=kind))

    rebuild(made, 6, spoil)
    assert any(f"c.jsonl.zst row 1: {finding}" in found for found in made.verify(check_input=False).findings)


@pytest.mark.parametrize("made", KINDS, indirect=True)
def test_finds_a_row_without_a_vector(made):
    def lose(table: pa.Table) -> pa.Table:
        codes = table["embedding"].combine_chunks().to_pylist()
        return replace_column(table, "embedding", pa.array([codes[0], None, *codes[2:]], table["embedding"].type))

    rebuild(made, 6, lose)
    findings = made.verify(check_input=False).findings
    assert f"{made.name(6)}: c.jsonl.zst row 1: there is no vector" in findings


def test_finds_a_shard_of_another_calibration(made):
    rebuild(made, 6, calibration="0" * 64)
    (finding,) = made.verify(check_input=False).findings
    assert finding == f"{made.name(6)}: its footer says another calibration than the job's calibration"


def test_finds_a_footer_with_other_scales(made):
    rebuild(made, 6, scale=json.dumps([0.5] * 16))
    (finding,) = made.verify(check_input=False).findings
    assert finding == f"{made.name(6)}: its footer says another scale than the job's calibration"


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"plan_id": "f" * 64}, "it says plan_id ffff"),
        ({"vectors": "binary"}, "it says vectors binary, expected int8"),
        ({"scale": (0.0,) * 16}, "its scale is not 16 finite numbers above 0"),
        ({"offset": (0.0,)}, "its offset is not 16 finite numbers"),
    ],
)
def test_finds_a_calibration_that_cannot_be_right(made, change, finding):
    path = made.output / calibrations.KEY
    path.write_bytes(replace(from_json(path.read_bytes()), **change).to_json())
    assert finding in made.verify(check_input=False).findings[0]


@pytest.mark.parametrize("data", [None, b"", b"[]", b"{}"])
def test_finds_a_calibration_that_is_gone_or_none(made, data):
    path = made.output / calibrations.KEY
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    assert calibrations.KEY in made.verify().findings[0]


def test_finds_another_calibration_in_its_place(made):
    path = made.output / calibrations.KEY
    other = from_json(path.read_bytes())
    path.write_bytes(replace(other, scale=tuple(2 * value for value in other.scale)).to_json())
    findings = made.verify(check_input=False).findings
    assert len(findings) == len(made.plan.units)
    assert all("its footer says another calibration" in finding for finding in findings)


def test_other_parquet_readers_read_all_kinds(pristine):
    for kind, (element, width) in {"float16": (pl.Float16, 16), "int8": (pl.Int8, 16), "binary": (pl.UInt8, 2)}.items():
        data = f"{pristine[kind].output}/data"
        assert pq.read_table(data).schema.metadata[b"embatch.vectors"] == kind.encode()
        assert pl.read_parquet(f"{data}/*.parquet").schema["embedding"] == pl.Array(element, width)
        query = f"select count(*), min(len(embedding)) from read_parquet('{data}/*.parquet')"
        assert duckdb.sql(query).fetchall() == [(131, width)]
        assert len(pd.read_parquet(data)["embedding"][0]) == width
