"""Kept columns of line files: text as it is, the rest as JSON text, or the type that the job gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus.corpus_reading import read

from pipeline.exceptions import ConfigError, SourceSchemaError


def write(folder: Path, *values: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": "a", "x": value}) + "\n" for value in values))
    return path


def test_untyped_values_become_text(tmp_path):
    values = ["as it is", "é\0", "", None, 5, 1.5, True, [1, "é"], {"b": {"c": None}, "a": 1}]
    kept = read(write(tmp_path, *values), keep=["x"]).keep["x"]
    assert kept[:4] == values[:4]
    assert kept[4:] == ["5", "1.5", "true", '[1, "é"]', '{"b": {"c": null}, "a": 1}']


def test_missing_key_is_null(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "x": "1"}\n{"text": "b"}\n')
    assert read(path, keep=["x"]).keep == {"x": ["1", None]}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int32", [0, -5, 2**31 - 1, -(2**31), 7.0, None]),
        ("int64", [2**63 - 1, -(2**63)]),
        ("float32", [0.5, -2, 2**24]),
        ("float64", [0.1, 1e300, 5]),
        ("bool", [True, False]),
        ("string", ["5", "true"]),
    ],
)
def test_typed_values_that_fit_are_kept(tmp_path, kind, values):
    assert read(write(tmp_path, *values), keep={"x": kind}).keep["x"] == values


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int32", 2**31),
        ("int32", 1.5),
        ("int32", "5"),
        ("int32", True),
        ("int32", [1]),
        ("int32", {}),
        ("int64", 2**63),
        ("int64", 10**400),
        ("float32", 1e300),
        ("float32", 2**24 + 1),
        ("float64", 2**53 + 1),
        ("float64", 10**400),
        ("float64", True),
        ("float64", "0.5"),
        ("bool", 1),
        ("bool", "true"),
        ("string", "\ud800"),
    ],
)
def test_value_that_does_not_fit_its_type_makes_its_row_dead(tmp_path, kind, value):
    found = read(write(tmp_path, None, value, None), keep={"x": kind})
    assert found.dead == {1: "BAD_UTF8" if kind == "string" else "BAD_VALUE"}
    assert found.keep["x"] == [None, None]


@pytest.mark.parametrize("kind", ["string", "float64"])
def test_number_beyond_all_floats_makes_its_row_dead(tmp_path, kind):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "x": 1e999}\n')
    assert read(path, keep={"x": kind}).dead == {0: "BAD_VALUE"}


def test_kept_values_stay_with_their_rows_when_others_die(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "" if row % 3 else f"row {row}", "x": row} for row in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, keep={"x": "int32"}, rows=7)
    assert found.keep["x"] == found.documents.source_row == [0, 3, 6, 9, 12, 15, 18]


HIVE = "dt=2026-11-22/lang=de%2FDE/x=7/"


def test_partition_values_are_kept_decoded(tmp_path):
    write(tmp_path, name=HIVE + "none.jsonl")
    (tmp_path / HIVE / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "lang=__HIVE_DEFAULT_PARTITION__").mkdir()
    (tmp_path / "lang=__HIVE_DEFAULT_PARTITION__/a.jsonl").write_text('{"text": "b"}\n')
    assert read(tmp_path, keep=["lang", "dt"]).keep == {"lang": ["de/DE", None], "dt": ["2026-11-22", None]}


def test_partition_values_take_the_type_of_their_column(tmp_path):
    (tmp_path / "x=7").mkdir()
    (tmp_path / "x=7/a.jsonl").write_text('{"text": "a"}\n{"text": "b", "x": 8}\n')
    assert read(tmp_path, keep={"x": "int32"}).keep["x"] == [7, 8]


def test_partition_value_that_does_not_fit_is_an_error_before_the_run(tmp_path):
    (tmp_path / "x=seven").mkdir()
    (tmp_path / "x=seven/a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(SourceSchemaError, match=r"column 'x' of 'x=seven/a\.jsonl': the partition value 'seven'"):
        read(tmp_path, keep={"x": "int32"})


def test_text_and_id_may_be_partition_values(tmp_path):
    (tmp_path / "topic=sea").mkdir()
    (tmp_path / "topic=sea/a.jsonl").write_text('{"body": "b"}\n{"body": "c", "topic": "sky"}\n')
    found = read(tmp_path, text="{topic}: {body}", id="topic")
    assert (found.texts, found.ids) == (["sea: b", "sky: c"], ["sea", "sky"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": "txt"}, "input.text: no such column in 'a.jsonl'; did you mean 'text'?"),
        ({"text": "{x} {body}"}, "input.text: no such column in 'a.jsonl'; it has text, x"),
        ({"id": "xx"}, "input.id: no such column in 'a.jsonl'; did you mean 'x'?"),
        ({"keep": ["year"]}, "input.keep: no file has 'year' in its first rows"),
    ],
)
def test_column_that_no_line_has_is_refused_before_the_run(tmp_path, keys, message):
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path, 1), **keys)
    assert str(caught.value).startswith(message)


def test_rare_column_may_be_kept_when_the_job_types_it(tmp_path):
    assert read(write(tmp_path, 1), keep={"year": "int32"}).keep == {"year": [None]}


def test_kept_column_may_be_in_one_of_several_files(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "b.jsonl").write_text('{"text": "b", "year": 2000}\n')
    assert read(tmp_path, keep=["year"]).keep == {"year": [None, "2000"]}
