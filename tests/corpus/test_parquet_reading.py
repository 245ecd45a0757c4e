"""Parquet is cut by rows and read from the nearest row group; a bad value costs its own row only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus.corpus_reading import examples, look, read, read_slices
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus import parquet
from pipeline.exceptions import SourceReadError

BAD = b"\xff\xfe"


def write(folder: Path, columns: dict[str, object] | pa.Table, name: str = "a.parquet", **options: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def strings(values: list[bytes | None], kind: pa.DataType | None = None) -> pa.Array:
    """Build strings without any check that they are UTF-8."""
    plain = pa.array(values, pa.large_binary())
    unchecked = pa.Array.from_buffers(pa.large_string(), len(plain), plain.buffers(), plain.null_count)
    return unchecked.cast(kind or pa.large_string())


@examples(40)
@given(
    rows=st.integers(0, 60),
    group=st.integers(1, 25),
    cut=st.integers(1, 25),
    limit=st.none() | st.integers(1, 70),
    batch=st.integers(1, 20),
)
def test_slices_hold_every_row_once_wherever_row_groups_end(tmp_path, rows, group, cut, limit, batch):
    path = write(tmp_path, {"text": [f"row {row}" for row in range(rows)]}, row_group_size=group)
    inspection = look(path, rows=cut, limit=limit)
    wanted = rows if limit is None else min(rows, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "BATCH_ROWS", batch)
        together = read_slices(path, inspection.slices)
        alone = [read_slices(path, [piece]).source_row for piece in inspection.slices]
    assert together.texts == [f"row {row}" for row in range(wanted)]
    assert together.source_row == [row for rows in alone for row in rows] == list(range(wanted))
    assert all(piece.rows <= cut for piece in inspection.slices)
    assert inspection.enterable == [piece.first_row % group == 0 for piece in inspection.slices]


def test_slices_that_leave_rows_out_are_read_forward(tmp_path):
    path = write(tmp_path, {"text": [f"row {row}" for row in range(50)]}, row_group_size=20)
    slices = look(path, rows=7).slices
    assert read_slices(path, [slices[1], slices[4]]).source_row == [*range(7, 14), *range(28, 35)]


def test_byte_cap_cuts_by_the_mean_size_of_a_row(tmp_path):
    path = write(tmp_path, {"text": ["x" * 1000 + str(row) for row in range(100)]}, use_dictionary=False)
    slices = look(path, size_bytes=10_500).slices
    assert {piece.rows for piece in slices} == {10}
    assert all(piece.size_bytes <= 10_500 for piece in slices)
    assert len(look(path, size_bytes=1).slices) == 100


@pytest.mark.parametrize("groups", [0, 1])
def test_file_without_rows_is_one_slice_without_rows(tmp_path, groups):
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for _ in range(groups):
            writer.write_table(schema.empty_table())
    (piece,) = look(tmp_path / "a.parquet").slices
    assert piece.rows == 0
    assert read_slices(tmp_path / "a.parquet", [piece]).texts == []


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("kind", [*TEXT_TYPES, pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_and_id_may_be_any_kind_of_string(tmp_path, kind):
    column = pa.array(["é", None, "b", "é"], pa.string()).cast(kind)
    found = read(write(tmp_path, {"text": column, "id": column}))
    assert (found.texts, found.ids, found.dead) == (["é", "b", "é"], ["é", "b", "é"], {1: "EMPTY"})


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_text_that_is_not_utf8_costs_its_row_only(tmp_path, kind):
    column = strings([b"a", BAD, "é".encode(), b"\xed\xa0\x80", b""], kind)
    assert read(write(tmp_path, {"text": column})).dead == {1: "BAD_UTF8", 3: "BAD_UTF8", 4: "EMPTY"}


def test_dictionary_that_is_not_utf8_is_a_read_error(tmp_path):
    """Arrow decodes a dictionary as a whole, before any row can be told from another."""
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), strings([b"a", BAD], pa.string()))
    with pytest.raises(SourceReadError, match=r"'a\.parquet'.*UTF8"):
        read(write(tmp_path, {"text": column}))


def test_id_that_is_not_utf8_costs_its_row_only(tmp_path):
    assert read(write(tmp_path, {"text": ["a", "b"], "id": strings([BAD, b"2"])})).dead == {0: "BAD_UTF8"}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, -(2**63), None]), ["1", "-9223372036854775808", None]),
        (pa.array([2**64 - 1, 0, None], pa.uint64()), ["18446744073709551615", "0", None]),
        (pa.array([1.5, float("nan"), None]), ["1.5", "NaN", None]),
        (pa.array(["a", "a", None]), ["a", "a", None]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=["int64", "uint64", "double", "repeated", "null"],
)
def test_ids_are_kept_as_text(tmp_path, ids, expected):
    assert read(write(tmp_path, {"text": ["a", "b", "c"], "id": ids})).ids == expected


def test_column_of_nothing_but_nulls_makes_every_row_empty(tmp_path):
    assert read(write(tmp_path, {"text": pa.nulls(3)})).dead == dict.fromkeys(range(3), "EMPTY")


def test_template_takes_scalar_columns(tmp_path):
    columns = {"n": [1, 2], "x": [0.5, None], "b": [True, False], "s": pa.array(["é", "f"]).dictionary_encode()}
    assert read(write(tmp_path, columns), text="{s} {n} {x} {b}").texts == ["é 1 0.5 true", "f 2  false"]


def test_text_over_the_cap_is_dead(tmp_path):
    assert read(write(tmp_path, {"text": ["é" * 50, "é" * 51]}), max_text_bytes=100).dead == {1: "TOO_LARGE"}


def test_columns_with_dots_are_told_from_nested_ones(tmp_path):
    path = write(tmp_path, {"a.b": ["flat"], "a": pa.array([{"b": "nested", "c": 1}])})
    found = read(path, text="a.b", keep=["a"])
    assert (found.texts, found.keep) == (["flat"], {"a": [{"b": "nested", "c": 1}]})


def test_json_columns_are_text_and_uuids_bytes(tmp_path):
    table = pa.table({"text": pa.array(["{}"], pa.json_()), "u": pa.array([bytes(16)], pa.uuid())})
    found = read(write(tmp_path, table, store_schema=False), keep=["u"])
    assert (found.texts, found.keep["u"], found.types["u"]) == (["{}"], [bytes(16)], pa.binary(16))


def test_partitions_stand_in_for_columns(tmp_path):
    write(tmp_path, {"text": ["a", "b"]}, name="dt=2026/x=7/a.parquet")
    found = read(tmp_path, keep={"x": "int32", "dt": "string"}, id="dt")
    assert (found.keep, found.ids) == ({"x": [7, 7], "dt": ["2026", "2026"]}, ["2026", "2026"])


@examples(25)
@given(
    table=st.lists(
        st.fixed_dictionaries(
            {
                "text": st.none() | st.binary(max_size=6),
                "id": st.none() | st.binary(max_size=3),
                "n": st.none() | st.integers(-(2**40), 2**40),
            }
        ),
        max_size=30,
    ),
    cut=st.integers(1, 9),
)
def test_every_row_ends_as_a_row_or_a_dead_letter(tmp_path, table, cut):
    columns = {
        "text": strings([row["text"] for row in table]),
        "id": strings([row["id"] for row in table]),
        "n": pa.array([row["n"] for row in table], pa.int64()),
    }
    found = read(write(tmp_path, columns), rows=cut, keep={"n": "int32"})
    assert sorted([*found.documents.source_row, *found.dead]) == list(range(len(table)))
    assert found.keep["n"] == [table[row]["n"] for row in found.documents.source_row]
    assert found.texts == [(table[row]["text"] or b"").decode() for row in found.documents.source_row]


def test_same_rows_give_the_same_documents_from_lines_and_from_parquet(tmp_path):
    rows = [
        {"text": word, "id": f"{number}", "x": None if number % 5 else "k"} for number, word in enumerate("ab c" * 9)
    ]
    write(tmp_path / "p", pa.Table.from_pylist(rows), row_group_size=10)
    (tmp_path / "l").mkdir()
    (tmp_path / "l/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, other = read(tmp_path / "p", keep=["x"], rows=4), read(tmp_path / "l", keep=["x"], rows=4)
    assert (one.texts, one.ids, one.keep, one.dead) == (other.texts, other.ids, other.keep, other.dead)
    assert (
        one.documents.source_row == other.documents.source_row == list(np.flatnonzero([r["text"] != " " for r in rows]))
    )
