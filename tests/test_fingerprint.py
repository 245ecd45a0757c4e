"""A digest is of values and their order: any change of either shows, the memory they lie in does not."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fingerprint import canonical_json, combine_digests, content_digest, differences

DAY = dt.date(2026, 11, 22)

COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int8": (pa.int8(), [1, -1, 0]),
    "int64": (pa.int64(), [2**62, 0, -1]),
    "uint64": (pa.uint64(), [2**64 - 1, 0, 1]),
    "float16": (pa.float16(), [1.5, 0.0, -2.0]),
    "float32": (pa.float32(), [0.1, 0.0, float("inf")]),
    "float64": (pa.float64(), [0.1, 0.0, -1e300]),
    "bool": (pa.bool_(), [True, False, False]),
    "string": (pa.string(), ["ab", "c", ""]),
    "large_string": (pa.large_string(), ["ab", "c", ""]),
    "string_view": (pa.string_view(), ["ab", "c", "a string too long to be held inline"]),
    "binary": (pa.binary(), [b"\xff\0", b"c", b""]),
    "binary_view": (pa.binary_view(), [b"\xff\0", b"c", b""]),
    "fixed_binary": (pa.binary(2), [b"ab", b"cd", b"\0\0"]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", "c"]),
    "date32": (pa.date32(), [DAY, dt.date(1970, 1, 1), dt.date(1, 1, 1)]),
    "date64": (pa.date64(), [DAY, dt.date(1970, 1, 1), dt.date(1971, 1, 1)]),
    "time32": (pa.time32("s"), [dt.time(1), dt.time(0), dt.time(2)]),
    "time64": (pa.time64("us"), [dt.time(1), dt.time(0), dt.time(2)]),
    "timestamp": (pa.timestamp("us", "UTC"), [dt.datetime(year, 1, 2, tzinfo=dt.UTC) for year in (2026, 1970, 1)]),
    "duration": (pa.duration("s"), [dt.timedelta(1), dt.timedelta(0), dt.timedelta(-1)]),
    "decimal": (pa.decimal128(9, 2), [decimal.Decimal("1.50"), decimal.Decimal("0.00"), decimal.Decimal("-1.00")]),
    "list": (pa.list_(pa.int32()), [[1, 2], [3], []]),
    "list of strings": (pa.list_(pa.string()), [["a", None], [""], []]),
    "large_list": (pa.large_list(pa.int32()), [[1, 2], [3], []]),
    "list_view": (pa.list_view(pa.int32()), [[1, 2], [3], []]),
    "fixed_list": (pa.list_(pa.float32(), 2), [[1, 2], [3, None], [0, 0]]),
    "fixed_list of strings": (pa.list_(pa.string(), 2), [["a", "b"], ["c", None], ["", ""]]),
    "struct": (pa.struct([("a", pa.int8()), ("b", pa.string())]), [{"a": 1, "b": "x"}, {"a": None, "b": ""}, {"a": 0}]),
    "map": (pa.map_(pa.string(), pa.int8()), [[("a", 1)], [("b", None), ("c", 2)], []]),
    "nested": (pa.list_(pa.struct([("x", pa.list_(pa.string()))])), [[{"x": ["a"]}], [{"x": None}, {"x": []}], []]),
}
columns = pytest.mark.parametrize(("kind", "values"), COLUMNS.values(), ids=COLUMNS)


def digest(column: pa.Array | pa.ChunkedArray) -> str:
    return content_digest(pa.table({"x": column}))


@columns
def test_chunks_slices_and_validity_buffers_do_not_matter(kind, values):
    values = [None, *values, None, *reversed(values)]
    whole = pa.array(values, kind)
    longer = pa.array([*values[2:5], *values, *values[:3]], kind)
    chunks = [pa.array(values[:2], kind), pa.array([], kind), pa.array(values[2:], kind)]
    taken = pa.concat_arrays([whole, whole]).slice(len(values))
    assert len({digest(each) for each in (whole, longer.slice(3, len(values)), pa.chunked_array(chunks), taken)}) == 1


@columns
def test_absent_and_all_set_validity_are_the_same(kind, values):
    whole = pa.array(values, kind)
    cut_from_nulls = pa.array([None, *values, None], kind).slice(1, len(values))
    assert digest(whole) == digest(cut_from_nulls)


@columns
def test_any_change_of_a_value_or_of_the_order_shows(kind, values):
    first, second, third = values
    variants = [
        [first, second, third],
        [second, first, third],
        [first, third, second],
        [first, second],
        [first, second, second],
        [first, second, None],
        [None, second, third],
        [first, second, third, None],
        [None, first, second, third],
        [],
        [None],
        [None, None],
    ]
    different = {repr(variant) for variant in variants}
    assert len({digest(pa.array(variant, kind)) for variant in variants}) == len(different) > 8


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (["ab", "c"], ["a", "bc"], pa.string()),
        (["", "ab"], ["ab", ""], pa.string()),
        ([None, "a"], ["", "a"], pa.string()),
        (["a\0", "b"], ["a", "\0b"], pa.string()),
        ([[1], [2, 3]], [[1, 2], [3]], pa.list_(pa.int8())),
        ([[], None], [None, []], pa.list_(pa.int8())),
        ([[None]], [None], pa.list_(pa.int8())),
        ([[[1], []]], [[[], [1]]], pa.list_(pa.list_(pa.int8()))),
        ([["a", "b"]], [["ab", ""]], pa.list_(pa.string(), 2)),
        ([None, [0, 0]], [[0, 0], None], pa.list_(pa.int8(), 2)),
        ([[None, None]], [None], pa.list_(pa.int8(), 2)),
        ([{"a": None}], [None], pa.struct([("a", pa.int8())])),
        ([[("a", 1)], []], [[], [("a", 1)]], pa.map_(pa.string(), pa.int8())),
        ([0.0], [-0.0], pa.float64()),
        ([None], [0], pa.int64()),
        ([None], [False], pa.bool_()),
    ],
)
def test_values_that_differ_in_their_bounds_or_nulls_differ(one, other, kind):
    assert digest(pa.array(one, kind)) != digest(pa.array(other, kind))


def test_columns_are_told_apart_by_name_and_order():
    a, b = pa.array([1, 2]), pa.array([3, 4])
    tables = [pa.table({"a": a, "b": b}), pa.table({"b": b, "a": a}), pa.table({"a": b, "b": a}), pa.table({"a": a})]
    assert len({content_digest(table) for table in tables}) == 4


def test_fields_of_a_struct_are_told_apart_by_name():
    assert digest(pa.array([{"a": 1}])) != digest(pa.array([{"b": 1}]))


def test_metadata_of_a_table_does_not_matter():
    table = pa.table({"a": [1]})
    assert content_digest(table) == content_digest(table.replace_schema_metadata({"any": "thing"}))


def test_bytes_under_a_null_do_not_matter():
    validity = pa.py_buffer(b"\x05")
    for junk in (7, 8):
        column = pa.Array.from_buffers(pa.int32(), 3, [validity, pa.py_buffer(np.array([1, junk, 3], np.int32))])
        assert digest(column) == digest(pa.array([1, None, 3], pa.int32()))
        lists = pa.ListArray.from_arrays(pa.array([0, None, 2], pa.int32()), pa.array([junk, junk]))
        assert digest(lists) == digest(pa.array([[junk, junk], None], pa.list_(pa.int64())))
    hidden = pa.ListArray.from_buffers(
        pa.list_(pa.int8()),
        2,
        [pa.py_buffer(b"\x02"), pa.py_buffer(np.array([0, 2, 3], np.int32))],
        children=[pa.array([9, 9, 1], pa.int8())],
    )
    assert digest(hidden) == digest(pa.array([None, [1]], pa.list_(pa.int8())))
    masked = pa.StructArray.from_arrays([pa.array([9, 1])], ["a"], mask=pa.array([True, False]))
    assert digest(masked) == digest(pa.array([None, {"a": 1}]))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([9, 9, 1, 2]), 2, mask=pa.array([True, False]))
    assert digest(fixed) == digest(pa.array([None, [1, 2]], pa.list_(pa.int64(), 2)))


def test_how_a_dictionary_is_built_does_not_matter():
    built = [
        pa.array(["b", None, "a", "b"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1]), pa.array(["a", "b", "unused"])),
        pa.DictionaryArray.from_arrays(pa.array([1, 2, 0, 1]), pa.array(["a", "b", None])),
        pa.DictionaryArray.from_arrays(pa.array([0, None, 2, 1], pa.int8()), pa.array(["b", "b", "a"])),
    ]
    assert {digest(each) for each in built} == {digest(pa.array(["b", None, "a", "b"]))}


@pytest.mark.parametrize("wide", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_kinds_of_string_columns_are_equal(wide):
    assert digest(pa.array(["a", None, ""], wide)) == digest(pa.array(["a", None, ""]))


def test_nan_equals_itself_bit_by_bit():
    assert digest(pa.array([float("nan")])) == digest(pa.array([float("nan")]))


def test_width_of_a_number_shows():
    assert digest(pa.array([1], pa.int32())) != digest(pa.array([1], pa.int64()))


rows = st.lists(
    st.fixed_dictionaries(
        {
            "s": st.none() | st.text(max_size=3),
            "l": st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=3),
            "f": st.none() | st.floats(width=32, allow_nan=False),
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=12,
)
SCHEMA = pa.schema([("s", pa.string()), ("l", pa.list_(pa.int8())), ("f", pa.float32()), ("b", pa.bool_())])


def exact(table: pa.Table) -> str:
    """Values as text: unlike ==, it tells -0.0 from 0.0."""
    return repr(table.to_pylist())


@settings(max_examples=150, deadline=None)
@given(one=rows, other=rows, cut=st.integers(0, 12))
def test_digests_are_equal_exactly_when_rows_are(one, other, cut):
    left, right = (pa.Table.from_pylist(each, SCHEMA) for each in (one, other))
    assert (content_digest(left) == content_digest(right)) == (exact(left) == exact(right))
    again = pa.concat_tables([left.slice(0, cut), left.slice(cut)])
    assert content_digest(again) == content_digest(left)


def test_digest_of_an_output_depends_on_the_order_of_its_shards():
    assert combine_digests(["a", "b"]) != combine_digests(["b", "a"])
    assert combine_digests([]) != combine_digests([""]) or combine_digests(["a"]) != combine_digests(["a", ""])


def test_canonical_json_is_one_form_of_equal_values():
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(
    ("planned", "now", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}, ['a.b: "x" -> "y"']),
        ({"a": {"b": None}}, {"a": {"b": [1, "é"]}}, ['a.b: null -> [1, "é"]']),
        ({"b": 1, "a": 2}, {"b": 2, "a": 1}, ["a: 2 -> 1", "b: 1 -> 2"]),
        ({"a": 1, "z": 0}, {"z": 0}, ["a: 1 -> absent"]),
        ({"z": 0}, {"a": {"b": 1}, "z": 0}, ["a.b: absent -> 1"]),
        ({"z": 0}, {"a": None, "z": 0}, []),
        ({"a": {}}, {"a": {"b": 1}}, ["a: {} -> absent", "a.b: absent -> 1"]),
        ({"a": 1}, {"a": True}, ["a: 1 -> true"]),
        ({"a": 1}, {"a": 1.0}, ["a: 1 -> 1.0"]),
        ({"a": []}, {"a": {}}, ["a: [] -> {}"]),
    ],
)
def test_differences_name_each_key_that_differs(planned, now, lines):
    assert differences(planned, now) == lines
