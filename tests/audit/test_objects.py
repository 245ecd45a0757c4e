"""The audit names each object of an output that is damaged, by its key."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_outputs import (
    rebuild,
    replace_column,
    republish,
)

from pipeline.audit.coding import Coding
from pipeline.audit.vectors import vector_faults
from pipeline.fingerprint import canonical_json, sha256


def test_finds_a_flipped_byte_in_a_vector_page(made):
    data = bytearray(made.shard(2).read_bytes())
    column = pq.ParquetFile(made.shard(2)).metadata.row_group(0).column(3)
    assert column.path_in_schema.startswith("embedding")
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    made.shard(2).write_bytes(data)
    digest, decoding = made.verify().findings
    assert digest.startswith(f"{made.name(2)}: the manifest says sha256 ")
    assert decoding.startswith(f"{made.name(2)}: cannot be read: ")
    assert "CRC checksum verification failed" in decoding


def test_finds_two_shards_with_each_others_contents(made):
    one, other = made.shard(1).read_bytes(), made.shard(2).read_bytes()
    made.shard(1).write_bytes(other)
    made.shard(2).write_bytes(one)
    findings = made.verify().findings
    assert findings[1] == f"{made.name(1)}: its footer says unit 2, expected 1"
    assert findings[3] == f"{made.name(2)}: its footer says unit 1, expected 2"
    assert all(f"{made.name(unit)}: the manifest says size_bytes" in findings[2 * unit - 2] for unit in (1, 2))
    assert len(findings) == 4


def test_finds_a_deleted_shard(made):
    made.shard(5).unlink()
    assert made.verify(allow_partial=True).findings == (f"{made.name(5)}: unit 5 has no shard",)


def test_finds_deleted_dead_letters(made):
    letters = made.dead(1)
    letters.unlink()
    assert made.verify().findings == (f"{made.name(1)}: its dead letters _dead/{letters.name} are missing",)


def test_finds_altered_dead_letters(made):
    letters = made.dead(10)
    table = pq.read_table(letters)
    pq.write_table(replace_column(table, "code", pa.array(["TOO_LONG"])), letters)
    by_manifest, by_footer = made.verify().findings
    changed = "dead_by_code {'EMPTY': 1} (found {'TOO_LONG': 1}), dead_sha256 "
    assert by_manifest.startswith(f"{made.name(10)}: the manifest says {changed}")
    assert by_footer.startswith(f"{made.name(10)}: its footer says {changed}")


@pytest.mark.parametrize("name", ["data/readme.txt", "data/part-00000011-000000000000.parquet", "data/a/b.tmp"])
def test_finds_foreign_objects_among_the_shards(made, name):
    (made.output / name).parent.mkdir(exist_ok=True)
    (made.output / name).write_bytes(b"?")
    assert made.verify().findings == (f"{name}: is not a shard of this plan",)


def test_finds_a_shard_copied_to_a_unit_that_is_not_planned(made):
    shutil.copy(made.shard(2), made.shard(11))
    assert made.verify().findings == (f"{made.name(11)}: is not a shard of this plan",)


def test_finds_a_shard_copied_over_another_unit_though_the_manifest_agrees(made):
    shutil.copy(made.shard(2), made.shard(3))
    republish(made)
    findings = made.verify().findings
    assert "_job/manifest.json does not list unit 3" in findings
    assert f"{made.name(3)}: its footer says unit 2, expected 3" in findings


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("rows_ok", 130, "_job/manifest.json says rows_ok 130, its entries give 131"),
        ("units", 12, "_job/manifest.json says units 12, its entries give 11"),
        ("plan_id", "0", "_job/manifest.json is of plan 0, the stored plan is {plan_id}"),
        ("format", 2, "_job/manifest.json has format 2; this embatch reads 1"),
        ("parts", 5, "_job/manifest.json cannot be read: TypeError: 'int' object is not iterable"),
    ],
)
def test_finds_an_altered_manifest_head(made, name, value, finding):
    path = made.output / "_job/manifest.json"
    path.write_bytes(canonical_json({**json.loads(path.read_bytes()), name: value}))
    assert made.verify().findings == (finding.format(plan_id=made.plan.plan_id),)


def test_finds_an_altered_manifest_entry_behind_a_consistent_head(made):
    path = made.output / "_job/manifest.json"
    head = json.loads(path.read_bytes())
    part = made.output / head["parts"][0]["key"]
    entries = pq.read_table(part)
    tokens = entries["tokens"].to_pylist()
    pq.write_table(replace_column(entries, "tokens", pa.array([tokens[0] + 1, *tokens[1:]])), part)
    head["parts"][0]["sha256"] = sha256(part.read_bytes())
    path.write_bytes(canonical_json({**head, "tokens": head["tokens"] + 1}))
    said = f"{made.name(0)}: the manifest says tokens {tokens[0] + 1} (found {tokens[0]})"
    assert made.verify().findings == (said,)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda receipts: receipts[:-1], "does not list unit 10"),
        (lambda receipts: receipts[::-1], "does not list the units in the plan's order"),
        (lambda receipts: [*receipts, receipts[3]], "lists unit 3 2 times"),
        (lambda receipts: [*receipts, replace(receipts[3], unit=99)], "lists unit 99, which is not in the plan"),
    ],
)
def test_finds_a_manifest_that_does_not_list_each_unit_once(made, change, finding):
    republish(made, change)
    assert made.verify().findings == (f"_job/manifest.json {finding}",)


def test_finds_an_altered_manifest_part(made):
    part = next((made.output / "_job/manifest").iterdir())
    part.write_bytes(part.read_bytes() + b"?")
    (finding,) = made.verify().findings
    assert finding.startswith(f"_job/manifest/{part.name} has sha256 ")


def test_finds_an_altered_plan_part(made):
    part = next((made.output / "_job/plan").iterdir())
    part.write_bytes(part.read_bytes() + b"?")
    assert made.verify().findings == (f"the plan is damaged: _job/plan/{part.name} is altered",)


@pytest.mark.parametrize("head", [b"?", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_finds_an_unreadable_plan(made, head):
    (made.output / "_job/plan.json").write_bytes(head)
    (finding,) = made.verify().findings
    assert finding.startswith("the plan is damaged: ")


def test_finds_that_nothing_belongs_to_an_altered_plan(made):
    path = made.output / "_job/plan.json"
    head = json.loads(path.read_bytes())
    head["requested"]["encoder"]["prompt"] = {"text": "query: "}
    path.write_bytes(canonical_json(head))
    assert made.verify().findings == ("the plan is damaged: _job/plan.json is altered",)
    del head["sha256"]  # as in plans from before there was one
    path.write_bytes(canonical_json(head))
    findings = made.verify().findings
    altered = sha256(path.read_bytes())
    assert findings[0] == f"_job/manifest.json is of plan {made.plan.plan_id}, the stored plan is {altered}"
    assert f"data/part-00000000-{altered[:12]}.parquet: unit 0 has no shard" in findings
    assert f"{made.name(0)}: is not a shard of this plan" in findings


@pytest.mark.parametrize(
    ("described", "finding"),
    [
        ({"dtype": "float16"}, "its footer says dtype float16, that of {first} says float32"),
        ({"normalized": "false"}, "its footer says normalized false, expected true"),
        ({"model": "hashing:17"}, "its footer says model hashing:17, expected hashing:16"),
    ],
)
def test_finds_a_footer_that_tells_of_another_encoder(made, described, finding):
    rebuild(made, 2, **described)
    assert made.verify().findings == (f"{made.name(2)}: {finding.format(first=made.name(0))}",)


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("embatch.format", "2", "has shard format '2'; this embatch reads 1"),
        ("embatch.plan_id", None, "its footer does not say embatch.plan_id"),
        ("embatch.counts", "5", "cannot be read: 'int' object is not iterable"),
        ("embatch.counts", '{"dead_key": "../x"}', "its footer names dead letters '../x' with sha256 'None'"),
        (
            "embatch.counts",
            '{"dead_key": "_dead/part-00000008-../../../x/y.parquet", "dead_sha256": "../../../x/y"}',
            "its footer names dead letters '_dead/part-00000008-../../../x/y.parquet' with sha256 '../../../x/y'",
        ),
        ("embatch.counts", '{"dead_key": null, "rows_in": 9}', "its footer says rows_in 9 (found 3)"),
    ],
)
def test_finds_an_altered_footer(made, name, value, finding):
    (made.output / "_job/manifest.json").unlink()
    table = pq.read_table(made.shard(8))
    metadata = {**table.schema.metadata, name.encode(): value}
    pq.write_table(
        table.replace_schema_metadata({key: text for key, text in metadata.items() if text is not None}), made.shard(8)
    )
    assert made.verify(allow_partial=True).findings == (f"{made.name(8)}: {finding}",)


def test_finds_other_columns_than_planned(made):
    rebuild(made, 8, lambda table: table.drop_columns("year"))
    (finding,) = made.verify().findings
    assert finding.startswith(f"{made.name(8)}: its columns are [id: string, section: string, embedding: ")


def test_finds_text_that_is_not_unicode(made):
    rebuild(made, 8, lambda table: replace_column(table, "id", pa.array([b"\xff"] * 3).view(pa.string())))
    (finding,) = made.verify().findings
    assert finding.startswith(f"{made.name(8)}: cannot be read: ")
    assert "Invalid UTF8 sequence" in finding


def test_finds_vectors_on_each_others_rows(made):
    def swap(table: pa.Table) -> pa.Table:
        return replace_column(table, "embedding", table["embedding"].take([1, 0, *range(2, len(table))]))

    rebuild(made, 2, swap)
    wrong = f"{made.name(2)}: a.jsonl row 40 has a vector that is not of its text (and 1 more rows)"
    assert made.verify().findings == (wrong,)


@pytest.mark.parametrize(("factor", "length"), [(2.0, "2"), (0.0, "0"), (float("nan"), "nan")])
def test_finds_vectors_that_do_not_have_length_one(made, factor, length):
    def scale(table: pa.Table) -> pa.Table:
        values = table["embedding"].combine_chunks().flatten().to_numpy().copy()
        values[16:32] *= np.float32(factor)
        return replace_column(
            table, "embedding", pa.FixedSizeListArray.from_arrays(values, type=table["embedding"].type)
        )

    rebuild(made, 6, scale)
    found = made.verify(check_input=False).findings
    assert found == (f"{made.name(6)}: c.jsonl.zst row 1: the vector has length {length}, promised 1",)


def test_asks_for_some_length_where_none_is_promised(made):
    table = pq.read_table(made.shard(8))
    vectors = pa.array([[0.0] * 16, [5.0] * 16, None], table["embedding"].type)
    coding = Coding(vectors="float32", dimension=16)
    assert vector_faults("data/x", replace_column(table, "embedding", vectors), coding, normalized=False) == [
        "data/x: d/more.jsonl row 2: there is no vector",
        "data/x: d/more.jsonl row 0: the vector has length 0 (and 1 more rows)",
    ]
