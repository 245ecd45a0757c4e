"""A Parquet job's columns are checked on the footers, and kept ones get one type over all files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus.corpus_reading import read

from pipeline.config import PromptConfig
from pipeline.exceptions import ConfigError, SourceSchemaError


def write(folder: Path, name: str = "a.parquet", **columns: object) -> Path:
    pq.write_table(pa.table({"text": ["t"] * len(next(iter(columns.values()), ["t"])), **columns}), folder / name)
    return folder


def unchecked_strings(*values: bytes) -> pa.Array:
    plain = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(plain), plain.buffers())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": "txt"}, "input.text: no such column in 'a.parquet'; did you mean 'text'? it has n, text, not 'txt'"),
        ({"text": "{n} {m}"}, "input.text: no such column in 'a.parquet'; it has n, text, not 'm'"),
        ({"id": "ident"}, "input.id: no such column in 'a.parquet'; it has n, text, not 'ident'"),
        ({"keep": ["m"]}, "input.keep: no such column in 'a.parquet'; it has n, text, not 'm'"),
    ],
)
def test_column_that_is_not_there_is_the_jobs_mistake_as_with_lines(tmp_path, keys, message):
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path, n=[1]), **keys)
    assert str(caught.value) == message


def test_column_that_is_no_text_is_refused_before_the_run(tmp_path):
    message = r"column 'n' of 'a\.parquet': is int64; a text is a string column, or a template such as"
    with pytest.raises(SourceSchemaError, match=message):
        read(write(tmp_path, n=[1]), text="n")


@pytest.mark.parametrize("column", [[["a"]], [{"a": 1}], [b"abc"]], ids=["list", "struct", "fixed"])
def test_ids_and_template_columns_that_have_no_text_form_are_refused(tmp_path, column):
    values = pa.array(column, pa.binary(3)) if column == [b"abc"] else pa.array(column)
    write(tmp_path, id=values)
    with pytest.raises(SourceSchemaError, match="an id is a string or an integer"):
        read(tmp_path)
    with pytest.raises(SourceSchemaError, match="a text is a string column"):
        read(tmp_path, text="{id}: {text}", id="text")


def test_column_that_occurs_twice_is_refused(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "n", "n"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceSchemaError, match=r"column 'n' of 'a\.parquet': there are 2 columns of this name"):
        read(tmp_path)


NESTED = pa.array([{"a": [1, None], "b": {"c": "é"}}, None])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array(["a", None]).dictionary_encode(), pa.string()),
        (pa.array(["a", None], pa.large_string()), pa.string()),
        (pa.array(["a", None], pa.string_view()), pa.string()),
        (pa.array([b"a", None], pa.binary_view()), pa.binary()),
        (pa.array([["a"], None], pa.large_list(pa.large_string())), pa.list_(pa.string())),
        (pa.array([["a"], None], pa.list_(pa.string_view())), pa.list_(pa.string())),
        (pa.array([["a"], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))), pa.list_(pa.string())),
        (pa.array([[1, 2], None], pa.list_(pa.int16(), 2)), pa.list_(pa.int16(), 2)),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), pa.map_(pa.string(), pa.int8())),
        (pa.array([1, None], pa.timestamp("ns", "UTC")), pa.timestamp("ns", "UTC")),
        (pa.array([1, None], pa.decimal128(9, 2)), pa.decimal128(9, 2)),
        (pa.array([1.5, None], pa.float16()), pa.float16()),
        (NESTED, NESTED.type),
        (pa.nulls(2), pa.null()),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_kept_columns_keep_their_values_in_plain_types(tmp_path, column, kind):
    found = read(write(tmp_path, x=column), keep=["x"])
    assert found.types["x"] == kind
    assert found.keep["x"] == column.to_pylist()


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), pa.int64()),
        (pa.array([1]), pa.array([0.5]), pa.float64()),
        (pa.nulls(1), pa.array(["a"]), pa.string()),
        (pa.array(["a"], pa.large_string()), pa.array(["b"]).dictionary_encode(), pa.string()),
        (pa.array([[1]], pa.list_(pa.int32())), pa.array([[2]], pa.large_list(pa.int64())), pa.list_(pa.int64())),
        (pa.array([1], pa.timestamp("us")), pa.array([2], pa.timestamp("ns")), pa.timestamp("ns")),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else str(value),
)
def test_kept_column_takes_the_common_type_of_all_files(tmp_path, one, other, kind):
    write(tmp_path, "a.parquet", x=one)
    write(tmp_path, "b.parquet", x=other)
    found = read(tmp_path, keep=["x"])
    assert found.types["x"] == kind
    assert pa.array(found.keep["x"], kind) == pa.concat_arrays([one.cast(kind), other.cast(kind)])


def test_struct_fields_that_some_files_lack_are_null_there(tmp_path):
    write(tmp_path, "a.parquet", x=pa.array([{"a": 1}]))
    write(tmp_path, "b.parquet", x=pa.array([{"b": "x"}]))
    assert read(tmp_path, keep=["x"]).keep["x"] == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_types_without_a_common_one_are_refused_naming_both_files(tmp_path):
    write(tmp_path, "a.parquet", x=[1])
    write(tmp_path, "b.parquet", x=["one"])
    with pytest.raises(SourceSchemaError) as caught:
        read(tmp_path, keep=["x"])
    assert (
        str(caught.value)
        == "column 'x' of 'b.parquet': is string, but int64 in 'a.parquet'; give its type in input.keep"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [(pa.float16(), pa.decimal128(5, 2)), (pa.int64(), pa.decimal128(5, 2)), (pa.null(), pa.list_view(pa.int8()))],
    ids=str,
)
def test_common_type_that_arrow_cannot_cast_to_is_none(tmp_path, one, other):
    write(tmp_path, "a.parquet", x=pa.nulls(1, one))
    write(tmp_path, "b.parquet", x=pa.nulls(1, other))
    with pytest.raises(SourceSchemaError, match=r"give its type in input\.keep"):
        read(tmp_path, keep=["x"])


def test_template_of_a_prompt_takes_what_a_text_must_not_be(tmp_path):
    write(tmp_path, n=[5])
    assert read(tmp_path, prompt=PromptConfig(template="{n}: ")).documents.prompts == ["5: "]
    with pytest.raises(SourceSchemaError, match="a text is a string column"):
        read(tmp_path, text="{text}", prompt=PromptConfig(column="n"))


def test_type_of_the_job_settles_types_without_a_common_one(tmp_path):
    write(tmp_path, "a.parquet", x=[1])
    write(tmp_path, "b.parquet", x=["one"])
    assert read(tmp_path, keep={"x": "string"}).keep["x"] == ["1", "one"]


def test_type_of_the_job_that_a_column_cannot_take_is_refused_before_the_run(tmp_path):
    with pytest.raises(SourceSchemaError, match=r"column 'x' .* is list<.*>, which cannot become int32"):
        read(write(tmp_path, x=[[1]]), keep={"x": "int32"})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int32", pa.array([1, 2**31, None])),
        ("int32", pa.array([1.0, 1.5, None])),
        ("int64", pa.array([1, 2**63, None], pa.uint64())),
        ("float32", pa.array([0.5, 1e300, None])),
        ("float64", pa.array([1, 2**53 + 1, None])),
        ("int32", pa.array(["1", "one", None])),
        ("string", pa.array([b"a", b"\xff", None])),
        ("string", unchecked_strings(b"a", b"\xff", b"c")),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else value,
)
def test_value_that_does_not_fit_costs_its_row_only(tmp_path, kind, values):
    found = read(write(tmp_path, x=values), keep={"x": kind})
    assert found.dead == {1: "BAD_VALUE"}
    assert len(found.keep["x"]) == len(found.texts) == 2
    assert found.keep["x"] == [
        values.take([0]).cast(found.types["x"])[0].as_py(),
        "c" if values.null_count == 0 else None,
    ]


def test_infinity_and_nan_are_kept_as_they_are(tmp_path):
    found = read(write(tmp_path, x=[float("inf"), float("nan")]), keep={"x": "float32"})
    assert str(found.keep["x"]) == "[inf, nan]"


@pytest.mark.parametrize("depth", ["list", "struct"])
def test_nested_string_that_is_not_utf8_costs_its_row_only(tmp_path, depth):
    strings = unchecked_strings(b"a", b"\xff", b"c")
    column = (
        pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), strings)
        if depth == "list"
        else pa.StructArray.from_arrays([strings], ["s"])
    )
    found = read(write(tmp_path, x=column), keep=["x"])
    assert found.dead == {1: "BAD_VALUE"}
    assert found.keep["x"] == ([["a"], ["c"]] if depth == "list" else [{"s": "a"}, {"s": "c"}])


def test_null_struct_of_required_fields_can_be_kept(tmp_path):
    kind = pa.struct([pa.field("a", pa.int8(), nullable=False)])
    write(
        tmp_path,
        x=pa.StructArray.from_arrays([pa.array([1, 0], pa.int8())], fields=list(kind), mask=pa.array([False, True])),
    )
    found = read(tmp_path, keep=["x"])
    assert found.keep["x"] == [{"a": 1}, None]
    pq.write_table(pa.table({"x": pa.array(found.keep["x"], found.types["x"])}), tmp_path / "shard.parquet")


def test_lines_and_parquet_share_the_type_of_a_kept_column(tmp_path):
    write(tmp_path, "a.parquet", x=[1])
    (tmp_path / "b.jsonl").write_text('{"text": "b", "x": 2}\n{"text": "c", "x": "three"}\n')
    found = read(tmp_path, keep=["x"])
    assert (found.types["x"], found.keep["x"], found.dead) == (pa.int64(), [1, 2], {1: "BAD_VALUE"})
