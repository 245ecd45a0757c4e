"""A shard is its rows and nothing else: equal work gives equal bytes, and damaged bytes are noticed."""

from __future__ import annotations

import io
import json
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import shard
from pipeline.exceptions import DamagedOutputError
from pipeline.fingerprint import content_digest, sha256
from pipeline.schema import DEAD_SCHEMA, output_schema
from pipeline.shard import Shard, ShardInfo, build, dead_table, describe, footer, read

DIMENSION = 8
KEEP = {"section": pa.string(), "tags": pa.list_(pa.string()), "when": pa.timestamp("ns")}
SCHEMA = output_schema(KEEP, DIMENSION)
KEY = "data/part-00000007-0123456789ab.parquet"
INFO = ShardInfo(plan_id="0123456789ab" * 4, unit=7, description={"model": "é\0", "prompt": "query: "})
DEAD = [("a.jsonl", 3, "EMPTY", "the text is null"), ("a.jsonl", 5, "BAD_JSON", "é"), ("b.jsonl", 0, "EMPTY", "blank")]


def make_table(rows: int) -> pa.Table:
    vectors = np.random.default_rng(rows).normal(size=(rows, DIMENSION)).astype(np.float32)
    columns = {
        "id": [None if row % 3 == 0 else f"id-{row}" for row in range(rows)],
        "section": [f"s{row % 4}" for row in range(rows)],
        "tags": [None if row % 5 == 0 else ["x"] * (row % 3) for row in range(rows)],
        "when": range(rows),
        "embedding": pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.reshape(-1)), type=SCHEMA.field("embedding").type
        ),
        "n_tokens": range(1, rows + 1),
        "truncated": [row % 2 == 0 for row in range(rows)],
        "source_file": ["a.jsonl"] * rows,
        "source_row": range(rows),
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(list(column), SCHEMA.field(name).type)
        for name, column in columns.items()
    ]
    return pa.table(arrays, schema=SCHEMA)


def make_shard(rows: int = 10, letters: list[tuple[str, int, str, str]] = DEAD) -> Shard:
    return build(INFO, KEY, make_table(rows), dead_table(letters))


@pytest.mark.parametrize("rows", [0, 1, 10, 5000])
def test_shard_reads_back_as_it_was_made(rows):
    made = make_shard(rows)
    assert read(made.data, KEY).equals(make_table(rows))
    assert read(made.data, KEY).schema.equals(SCHEMA)
    assert pq.read_table(io.BytesIO(made.data)).schema.equals(SCHEMA)


def test_receipt_tells_what_is_in_the_shard():
    receipt = make_shard(10).receipt
    assert (receipt.unit, receipt.key, receipt.rows_in, receipt.rows_ok, receipt.rows_dead) == (7, KEY, 13, 10, 3)
    assert (receipt.tokens, receipt.truncated, receipt.dead_by_code) == (55, 5, {"BAD_JSON": 1, "EMPTY": 2})
    assert receipt.content_digest == content_digest(make_table(10))


@pytest.mark.parametrize("rows", [0, 10])
@pytest.mark.parametrize("letters", [[], DEAD])
def test_receipt_can_be_told_from_the_bytes_alone(rows, letters):
    made = make_shard(rows, letters)
    assert describe(KEY, made.data) == made.receipt
    assert (made.receipt.size_bytes, made.receipt.sha256) == (len(made.data), sha256(made.data))


def test_equal_work_gives_equal_bytes():
    assert make_shard() == make_shard()


def test_how_the_rows_lie_in_memory_does_not_matter():
    table = make_table(100)
    pieces = pa.concat_tables([table.slice(0, 33), table.slice(33, 0), table.slice(33)])
    assert build(INFO, KEY, pieces, dead_table(DEAD)) == build(INFO, KEY, table, dead_table(DEAD))


@pytest.mark.parametrize("vectors", ["int8", "binary"])
def test_elements_of_a_byte_take_a_byte(vectors):
    schema = output_schema({}, 512, vectors)
    kind = schema.field("embedding").type
    random = np.random.default_rng(0).integers(-128, 128, 2000 * kind.list_size)
    codes = pa.FixedSizeListArray.from_arrays(random.astype(np.int8).view(kind.value_type.to_pandas_dtype()), type=kind)
    table = make_table(2000).drop_columns(list(KEEP))
    table = table.set_column(1, schema.field("embedding"), codes).cast(schema)
    made = build(INFO, KEY, table, dead_table([]))
    assert len(made.data) < 1.05 * codes.nbytes + 20_000
    assert read(made.data, KEY).equals(table)


def test_plan_unit_and_description_are_in_the_footer():
    found = footer(make_shard().data, KEY)
    assert (found["format"], found["plan_id"], found["unit"]) == ("1", INFO.plan_id, "7")
    assert (found["model"], found["prompt"]) == ("é\0", "query: ")
    assert json.loads(found["counts"])["rows_ok"] == 10


def test_token_counts_beyond_32_bits_are_summed_and_missing_ones_count_nothing():
    table = make_table(3)
    at = table.schema.names.index("n_tokens")
    many = table.set_column(at, SCHEMA.field(at), pa.array([2**31 - 1] * 3, pa.int32()))
    none = table.set_column(at, SCHEMA.field(at), pa.nulls(3, pa.int32()))
    assert build(INFO, KEY, many, dead_table([])).receipt.tokens == 3 * (2**31 - 1)
    assert build(INFO, KEY, none, dead_table([])).receipt.tokens == 0


def test_dead_letters_are_a_file_named_by_its_content():
    made = make_shard()
    assert made.dead_data is not None
    table = pq.read_table(io.BytesIO(made.dead_data))
    assert table.schema.equals(DEAD_SCHEMA)
    assert [tuple(row.values()) for row in table.to_pylist()] == DEAD
    assert made.receipt.dead_sha256 == sha256(made.dead_data)
    assert made.receipt.dead_key == f"_dead/part-00000007-{sha256(made.dead_data)[:12]}.parquet"


def test_unit_without_dead_letters_has_no_such_file():
    made = make_shard(letters=[])
    assert made.dead_data is None
    assert (made.receipt.dead_key, made.receipt.dead_sha256, made.receipt.dead_by_code) == (None, None, {})


DATA = make_shard(200).data
FOOTER = int.from_bytes(DATA[-8:-4], "little")


def body(data: bytes) -> int:
    return len(data) - FOOTER - 8


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_flipped_bit_in_the_data_never_reads_as_other_rows(at, bit):
    at = 4 + at % (body(DATA) - 4)
    damaged = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
    table = make_table(200)
    with suppress(DamagedOutputError):
        table = read(damaged, KEY)
    assert content_digest(table) == content_digest(make_table(200))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_flipped_bit_in_a_page_is_damage(share):
    at = int(body(DATA) * share)
    with pytest.raises(DamagedOutputError, match="CRC"):
        read(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], KEY)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(DATA) - 1))
def test_truncated_shard_is_damage(cut):
    for look in (read, footer):
        with pytest.raises(DamagedOutputError):
            look(DATA[:cut], KEY)
    with pytest.raises(DamagedOutputError):
        describe(KEY, DATA[:cut])


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, FOOTER - 1), bit=st.integers(0, 7))
def test_flipped_bit_in_the_footer_raises_nothing_but_damage(at, bit):
    at = len(DATA) - 8 - FOOTER + at
    damaged = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
    with suppress(DamagedOutputError):
        describe(KEY, damaged)
        read(damaged, KEY)


def parquet_with(metadata: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        make_table(1).replace_schema_metadata({f"embatch.{key}": text for key, text in metadata.items()}), sink
    )
    return sink.getvalue()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "shard format None; this embatch reads 1"),
        ({"format": "2"}, "shard format '2'; this embatch reads 1"),
        ({"format": "1", "counts": "{}"}, "its footer lacks unit or counts"),
        ({"format": "1", "unit": "7"}, "its footer lacks unit or counts"),
        ({"format": "1", "unit": "7", "counts": "{}"}, "its footer lacks unit or counts"),
        ({"format": "1", "unit": "seven", "counts": "{}"}, "its footer lacks unit or counts"),
        ({"format": "1", "unit": "7", "counts": "{"}, "its footer lacks unit or counts"),
        ({"format": "1", "unit": "7", "counts": "[]"}, "its footer lacks unit or counts"),
    ],
)
def test_parquet_that_is_no_shard_of_ours_is_damage(metadata, message):
    with pytest.raises(DamagedOutputError, match=message):
        describe(KEY, parquet_with(metadata))


def test_shard_that_reads_back_differently_is_not_handed_out(monkeypatch):
    monkeypatch.setattr(shard, "read", lambda data, key: make_table(9))
    with pytest.raises(DamagedOutputError, match="nothing was published"):
        make_shard(10)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.decimal128(9, 2),
        pa.date32(),
        pa.time64("ns"),
        pa.timestamp("ms", "Europe/Berlin"),
        pa.duration("us"),
        pa.binary(),
        pa.binary(3),
        pa.null(),
        pa.map_(pa.string(), pa.int8()),
        pa.list_(pa.int16(), 2),
        pa.list_(pa.list_(pa.string())),
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))]),
    ],
    ids=str,
)
def test_kept_columns_of_any_type_read_back(kind):
    columns = make_table(2).drop_columns(list(KEEP)).add_column(1, "kept", pa.nulls(2, kind)).columns
    made = build(INFO, KEY, pa.table(columns, schema=output_schema({"kept": kind}, DIMENSION)), dead_table([]))
    assert read(made.data, KEY).schema.field("kept").type == kind
