"""The audit accepts what the writer makes and names each single damage, by key and row.

Outputs are made without Ray: the read step and the commit are the real ones, driven here unit by unit.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import plan as plans
from pipeline import shard
from pipeline.audit import VerifyReport, verify
from pipeline.audit.coding import Coding
from pipeline.audit.findings import Findings
from pipeline.audit.units import unit_faults
from pipeline.audit.vectors import vector_faults
from pipeline.calibration import Calibration, calibrate
from pipeline.checkpoint import calibrations, commits, manifest
from pipeline.config import JobConfig, parse_job
from pipeline.encoders import precision
from pipeline.encoders.hashing import HashingEncoder
from pipeline.encoders.registry import spec_of
from pipeline.exceptions import ConfigError, SourceReadError, TransientStorageError
from pipeline.fingerprint import canonical_json, sha256
from pipeline.plan import Plan, document
from pipeline.ray_data import payload
from pipeline.ray_data.order import WorkOrder, describe, make_order
from pipeline.ray_data.reading import read_sample, read_units
from pipeline.records import Receipt, Slice, Unit
from pipeline.storage import open_store

DEAD_LINES = {
    "EMPTY": [b"", b"   ", b'{"id": 1, "text": null}', b'{"id": 1, "text": " \\n\\u3000"}'],
    "MISSING_TEXT": [b'{"id": 1}'],
    "BAD_TYPE": [b'{"id": 1, "text": 5}'],
    "BAD_JSON": [
        b'{"id": 1, "text": ',
        b"[1]",
        b'{"text": "a", "text": "b"}',
        b'{"text": "a", "n": NaN}',
        b'\xef\xbb\xbf{"text": "a byte order mark in the middle"}',
    ],
    "BAD_UTF8": [b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"text": "a", "id": "\\udc00"}'],
    "BAD_VALUE": [b'{"text": "a", "year": "late"}'],
    "TOO_LARGE": [b'{"text": "' + b"x" * 301 + b'"}', b'{"text": "a", "other": "' + b"y" * 1300 + b'"}'],
}
GOOD_LINES = [
    b'\xef\xbb\xbf{"text": "a byte order mark before it", "id": "bom", "year": 1}',
    b'{"text": "' + b"x" * 300 + b'"}\r',
    b'{"text": "a number for an id", "id": 7, "section": {"deep": [1, null, "\\u00e9"]}}',
    b'{"text": "an object for an id", "id": {"b": 1.5, "a": true}, "section": false, "year": 3}',
    '{"text": "ünïcode \\ud83d\\ude00", "id": "é", "section": "§", "other": "\\ud800"}'.encode(),
]


@dataclass(frozen=True)
class Made:
    """A corpus and its output, both free to be damaged."""

    corpus: Path
    output: Path
    plan: Plan

    def shard(self, unit: int) -> Path:
        return self.output / plans.shard_key(self.plan.plan_id, unit)

    def name(self, unit: int) -> str:
        return plans.shard_key(self.plan.plan_id, unit)

    def dead(self, unit: int) -> Path:
        return next((self.output / "_dead").glob(f"part-{unit:08d}-*"))

    def verify(self, **options: Any) -> VerifyReport:
        return verify(str(self.output), input_uri=str(self.corpus), **options)


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"row-{number}", "text": f"the text of row {number}", "section": f"s{number % 3}", "year": number}
        for number in range(first, first + count)
    ]


def lines(first: int, count: int) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows(first, count))


def write_corpus(folder: Path) -> Path:
    """Every format, every kind of dead letter, an empty file, and a last line without a newline."""
    folder.mkdir(parents=True)
    odd = GOOD_LINES + [line for several in DEAD_LINES.values() for line in several]
    (folder / "a.jsonl").write_bytes(b"\n".join(odd) + b"\n" + lines(0, 40).rstrip(b"\n"))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(100, 20)) + gzip.compress(lines(120, 5)))
    (folder / "c.jsonl.zst").write_bytes(pa.compress(lines(200, 30), codec="zstd", asbytes=True))
    (folder / "d").mkdir()
    (folder / "d.jsonl").write_bytes(b"")
    (folder / "d/more.jsonl").write_bytes(lines(250, 3))
    table = pa.Table.from_pylist([*rows(300, 28), {"id": "null", "text": None, "section": "s", "year": 1}])
    dictionary = table["section"].combine_chunks().dictionary_encode()
    table = table.set_column(table.column_names.index("section"), "section", dictionary)
    write_parquet(table, folder / "e.parquet")
    return folder


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a file whose size does not depend on its numbers."""
    pq.write_table(table, path, row_group_size=10, compression="none", use_dictionary=False, write_statistics=False)


def job(corpus: Path | str, output: Path | str, **sections: Mapping[str, Any]) -> JobConfig:
    keep = {"section": "string", "year": "int32"}
    values: dict[str, Any] = {
        "input": {"uri": str(corpus), "keep": keep, "max_text_bytes": 300},
        "encoder": {"model": "hashing:16"},
        "output": {"uri": str(output), "unit_rows": 20},
    }
    return parse_job({name: {**values[name], **sections.get(name, {})} for name in values})


def embed(
    config: JobConfig,
    plan: Plan | None = None,
    *,
    skip_changed: bool = False,
    before_unit: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Plan, read, encode, commit and publish, one unit after the other."""
    store = open_store(config.output.uri)
    plan = plan or plans.make_plan(config, precision.detect("cpu"))
    plans.publish(store, plan)
    order = make_order(config, plan, threads=1, skip_changed=skip_changed, log=None)
    if plan.vectors != "float32":
        order = order.calibrated(calibrations.publish(store, calibrated(plan, order)))
    receipts = []
    for unit in plan.units:
        before_unit(unit.number)
        row = next(iter(read_units(pa.table({"units": [[unit.to_json()]]}), order)))
        assert row.column("error")[0].as_py() is None
        made = encode(order, plan, payload.from_row(row), unit)
        receipts.append(commits.commit(store, made, plan.plan_id))
    manifest.publish(store, plan.plan_id, receipts, single_writer=False)
    return plan


def calibrated(plan: Plan, order: WorkOrder) -> Calibration:
    encoder = HashingEncoder(spec_of(plan.resolved["encoder"]))
    sample = [encoder.encode(read_sample(unit, count, order)) for unit, count in plans.sample_units(plan.units)]
    return calibrate(plan.plan_id, plan.vectors, plan.resolved["encoder"]["dimension"], sample)


def encode(order: WorkOrder, plan: Plan, work: payload.Payload, unit: Unit) -> shard.Shard:
    vectors = HashingEncoder(spec_of(plan.resolved["encoder"])).encode(work.prepared)
    codes = vectors if order.calibration is None else order.calibration.encode(vectors)[0]
    sources = [piece.source.path for piece in unit.slices]
    columns = {
        "id": work.ids.cast(pa.string()),
        **work.keep,
        "embedding": pa.FixedSizeListArray.from_arrays(codes.reshape(-1), type=plan.schema.field("embedding").type),
        "n_tokens": work.prepared.rows["n_tokens"],
        "truncated": work.prepared.rows["truncated"],
        "source_file": pa.array(sources, pa.string()).take(work.slice_index),
        "source_row": work.source_row,
    }
    table = pa.table([columns[name] for name in plan.schema.names], schema=plan.schema)
    letters = [
        (sources[dead["slice_index"]], dead["row"], dead["code"], dead["reason"]) for dead in work.dead.to_pylist()
    ]
    told = {} if order.calibration is None else order.calibration.description()
    return build(plan, unit.number, table, shard.dead_table(letters), **told)


def build(plan: Plan, unit: int, table: pa.Table, dead: pa.Table, **described: str) -> shard.Shard:
    info = shard.ShardInfo(plan_id=plan.plan_id, unit=unit, description={**describe(plan), **described})
    return shard.build(info, plans.shard_key(plan.plan_id, unit), table, dead)


def rebuild(
    made: Made,
    unit: int,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
    *,
    dead: pa.Table | None = None,
    **described: str,
) -> None:
    """Change a shard as a consistent liar would: footers, digests and manifest all made anew."""
    told = shard.footer(made.shard(unit).read_bytes(), made.name(unit))
    described = {name: told[name] for name in ("vectors", "calibration", "scale", "offset") if name in told} | described
    table = change(pq.read_table(made.shard(unit)).replace_schema_metadata())
    if dead is None:
        found = list((made.output / "_dead").glob(f"part-{unit:08d}-*"))
        dead = pq.read_table(found[0]) if found else shard.dead_table([])
    lie = build(made.plan, unit, table, dead, **described)
    made.shard(unit).write_bytes(lie.data)
    if lie.dead_data is not None:
        (made.output / str(lie.receipt.dead_key)).write_bytes(lie.dead_data)
    republish(made)


def republish(made: Made, change: Callable[[list[Receipt]], list[Receipt]] = lambda receipts: receipts) -> None:
    shutil.rmtree(made.output / "_job/manifest")
    (made.output / "_job/manifest.json").unlink()
    names = [made.name(unit.number) for unit in made.plan.units]
    receipts = change([shard.describe(name, (made.output / name).read_bytes()) for name in names])
    manifest.publish(open_store(str(made.output)), made.plan.plan_id, receipts, single_writer=False)


def replace_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    index = table.column_names.index(name)
    return table.set_column(index, table.schema.field(name), values)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pristine")
    corpus, output = write_corpus(folder / "corpus"), folder / "output"
    return Made(corpus=corpus, output=output, plan=embed(job(corpus, output)))


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    corpus, output = tmp_path / "corpus", tmp_path / "output"
    shutil.copytree(pristine.corpus, corpus)
    shutil.copytree(pristine.output, output)
    return Made(corpus=corpus, output=output, plan=pristine.plan)


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


def test_finds_a_dropped_row_though_all_counts_agree(made):
    rebuild(made, 9, lambda table: table.slice(1))
    assert made.verify().findings == (f"{made.name(9)}: e.parquet row 0 is neither embedded nor dead",)


def test_finds_a_doubled_row_though_all_counts_agree(made):
    rebuild(made, 8, lambda table: table.take([0, 1, 1, 2]))
    assert made.verify().findings == (f"{made.name(8)}: d/more.jsonl row 1 is there 2 times",)


def test_finds_rows_out_of_order(made):
    rebuild(made, 8, lambda table: table.take([0, 2, 1]))
    assert made.verify().findings == (f"{made.name(8)}: d/more.jsonl row 1 comes after d/more.jsonl row 2",)


def test_finds_rows_of_another_unit(made):
    def shift(table: pa.Table) -> pa.Table:
        return replace_column(table, "source_row", pa.array([0, 1, 3]))

    rebuild(made, 8, shift)
    foreign, missing = made.verify().findings
    assert foreign == f"{made.name(8)}: embeds d/more.jsonl row 3, which is not in unit 8"
    assert missing == f"{made.name(8)}: d/more.jsonl row 2 is neither embedded nor dead"


def test_finds_a_good_row_that_was_buried(made):
    letter = shard.dead_table([("d/more.jsonl", 2, "EMPTY", "the text is empty")])
    rebuild(made, 8, lambda table: table.slice(0, 2), dead=letter)
    wrong = f"{made.name(8)}: d/more.jsonl row 2 is dead as EMPTY, but its source is a row that can be embedded"
    assert made.verify().findings == (wrong,)


def test_finds_a_dead_letter_with_the_wrong_code(made):
    rebuild(made, 10, dead=shard.dead_table([("e.parquet", 28, "TOO_LARGE", "?")]))
    wrong = f"{made.name(10)}: e.parquet row 28 is dead as TOO_LARGE, but its source is EMPTY"
    assert made.verify().findings == (wrong,)


def test_finds_dead_letters_with_other_columns(made):
    rebuild(made, 10, dead=pq.read_table(made.dead(10)).append_column("n", pa.array([1])))
    (finding,) = made.verify().findings
    assert finding.endswith(
        ".parquet have columns [source_file: string not null, source_row: int64 not null, "
        "code: string not null, reason: string not null, n: int64]"
    )


def test_finds_a_unit_that_mixes_two_versions_of_a_file(made):
    letter = shard.dead_table([("d/more.jsonl", 2, "SOURCE_CHANGED", "d/more.jsonl: size 1 -> 2")])
    rebuild(made, 8, lambda table: table.slice(0, 2), dead=letter)
    mixed = f"{made.name(8)}: 1 of d/more.jsonl rows 0 to 2 are set aside as changed, the others are not"
    assert made.verify().findings == (mixed,)


def test_finds_an_embedded_row_that_should_be_dead(made):
    def invent(table: pa.Table) -> pa.Table:
        row = replace_column(table.slice(7), "source_row", pa.array([28]))
        return pa.concat_tables([table, row]).combine_chunks()

    rebuild(made, 10, invent, dead=shard.dead_table([]))
    wrong = f"{made.name(10)}: e.parquet row 28 is embedded, but its source is EMPTY"
    assert made.verify().findings == (wrong,)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (b'"row-20"', b'"row-!!"', "a.jsonl row 42 has id 'row-20', its source 'row-!!'"),
        (b'"year": 20}', b'"year": 99}', "a.jsonl row 42 has year 20, its source 99"),
        (b'"year": 20}', b'"year": .5}', "a.jsonl row 42 is embedded, but its source is BAD_JSON"),
        (b'"year": 20}', b'"year":2.5}', "a.jsonl row 40 or later: year cannot be int32: a number that is no int32"),
        (b"of row 20", b"of row !!", "a.jsonl row 42 has a vector that is not of its text"),
        (
            b'"text": "the text of row 20"',
            b'"text": "                  "',
            "a.jsonl row 42 is embedded, but its source is EMPTY",
        ),
    ],
)
def test_finds_a_row_that_is_not_what_the_source_says(made, old, new, finding):
    path = made.corpus / "a.jsonl"
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    assert made.verify().findings == (f"{made.name(2)}: {finding}",)


def test_finds_a_parquet_value_that_is_not_what_the_source_says(made):
    path = made.corpus / "e.parquet"
    table = pq.read_table(path)
    write_parquet(replace_column(table, "year", pa.array([300, 7, *range(302, 328), 1])), path)
    assert made.verify().findings == (f"{made.name(9)}: e.parquet row 1 has year 301, its source 7",)


def test_finds_rows_appended_to_a_source(made):
    more = b"\n" + lines(40, 1)
    with (made.corpus / "a.jsonl").open("ab") as file:
        file.write(more)
    size = made.plan.sources[0].size
    said = f"source file a.jsonl: has {size + len(more)} bytes, planned with {size}; its rows were not compared"
    assert made.verify().findings == (said,)


def test_finds_a_source_that_was_rewritten_in_place(pristine, tmp_path):
    shutil.copytree(pristine.corpus, tmp_path / "corpus")
    work = job(tmp_path / "corpus", tmp_path / "output")
    embed(work)
    assert verify(str(tmp_path / "output")).findings == ()
    path = tmp_path / "corpus/a.jsonl"
    path.write_bytes(path.read_bytes())
    (finding,) = verify(str(tmp_path / "output")).findings
    assert finding.startswith("source file a.jsonl: was rewritten since it was planned; vectors may be of other texts")
    assert verify(str(tmp_path / "output"), input_uri=str(tmp_path / "corpus")).findings == ()


@pytest.mark.s3
@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [("AWS_ACCESS_KEY_ID", None, SourceReadError), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", TransientStorageError)],
)
def test_a_store_of_the_input_that_gives_nothing_is_no_damage(made, bucket, monkeypatch, variable, value, kind):
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(kind, match=bucket):
        verify(str(made.output), input_uri=f"s3://{bucket}/corpus/")
    s3fs.S3FileSystem.clear_instance_cache()


def test_finds_a_source_that_is_gone(made):
    (made.corpus / "b.jsonl.gz").unlink()
    assert made.verify().findings == ("source file b.jsonl.gz: is gone",)


def test_finds_a_source_with_fewer_rows_in_as_many_bytes(made):
    path = made.corpus / "d/more.jsonl"
    path.write_bytes(path.read_bytes().replace(b"}\n{", b"} {"))
    short, joined = made.verify().findings
    assert short == "source file d/more.jsonl: ends at row 1, more are planned"
    assert joined == f"{made.name(8)}: d/more.jsonl row 0 is embedded, but its source is BAD_JSON"


def test_finds_a_source_that_cannot_be_decoded(made):
    path = made.corpus / "b.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    (finding,) = made.verify().findings
    assert finding.startswith("source file b.jsonl.gz: cannot be read: CRC check failed")


def replan(plan: Plan, unit: int, **changes: int) -> Plan:
    """The plan of a planner that is wrong about one slice."""
    units = list(plan.units)
    (piece,) = units[unit].slices
    units[unit] = replace(units[unit], slices=(replace(piece, **changes),))
    return document.build(plan.requested, plan.resolved, plan.schema, units)


def test_finds_rows_that_were_read_at_wrong_offsets(pristine, tmp_path):
    (piece,) = pristine.plan.units[2].slices
    line = len(lines(20, 1))
    wrong = replan(pristine.plan, 2, start=piece.start + line, end=piece.end + line)
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    key = plans.shard_key(wrong.plan_id, 2)
    assert verify(str(tmp_path / "output")).findings == (
        f"{key}: a.jsonl row 40 has id 'row-19', its source 'row-18' (and 19 more rows)",
        f"{key}: a.jsonl row 40 has a vector that is not of its text (and 19 more rows)",
        f"{key}: a.jsonl row 40 has section s1, its source s0",
        f"{key}: a.jsonl row 40 has year 19, its source 18",
    )


def test_finds_rows_that_were_never_planned(pristine, tmp_path):
    (piece,) = pristine.plan.units[5].slices
    wrong = replan(pristine.plan, 5, rows=piece.rows - 1, end=piece.end - len(lines(124, 1)))
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    (finding,) = verify(str(tmp_path / "output")).findings
    assert finding == "source file b.jsonl.gz: goes on after row 23, the last one planned"


def test_finds_rows_left_out_of_a_trial_that_was_to_have_all(pristine, tmp_path):
    config = job(pristine.corpus, tmp_path / "output", input={"limit": 1000})
    wrong = replan(plans.make_plan(config, precision.detect("cpu")), 10, rows=8)
    embed(config, wrong)
    left_out = "source file e.parquet: goes on after row 27, the last one planned"
    assert verify(str(tmp_path / "output")).findings == (left_out,)


def test_finds_rows_left_out_before_the_last_file_of_a_trial(pristine, tmp_path):
    config = job(pristine.corpus, tmp_path / "output", input={"limit": pristine.plan.rows - 1})
    plan = plans.make_plan(config, precision.detect("cpu"))
    (piece,) = plan.units[5].slices
    wrong = replan(replan(plan, 10, rows=9), 5, rows=4, end=piece.end - len(lines(124, 1)))
    embed(config, wrong)
    left_out = "source file b.jsonl.gz: goes on after row 23, the last one planned"
    assert verify(str(tmp_path / "output")).findings == (left_out,)


def test_finds_units_that_overlap(pristine, tmp_path):
    wrong = replan(pristine.plan, 2, first_row=39)
    embed(job(pristine.corpus, tmp_path / "output"), wrong)
    assert verify(str(tmp_path / "output")).findings == (
        "unit 2 plans a.jsonl rows 39 to 58, expected from row 40",
        "unit 3 plans a.jsonl rows 60 to 61, expected from row 59",
    )


def numbered(*slices: tuple[Slice, ...]) -> list[Unit]:
    return [Unit(number=number, group=number, slices=several) for number, several in enumerate(slices)]


def test_finds_units_that_cannot_be_right(pristine):
    first, second, other = (pristine.plan.units[unit].slices[0] for unit in (4, 5, 6))
    asked = {**pristine.plan.requested, "input": {**pristine.plan.requested["input"], "limit": 44}}

    def faults(units: list[Unit]) -> list[str]:
        return unit_faults(document.build(asked, pristine.plan.resolved, pristine.plan.schema, units))

    assert faults(numbered((first,), (second,))) == []
    assert faults(numbered((first,), (second,), (other,))) == ["the plan has 45 rows, the job asked for the first 44"]
    assert faults(numbered((first, second))) == ["unit 0 plans two slices of one file"]
    assert faults(numbered((second,))) == ["unit 0 plans b.jsonl.gz rows 20 to 24, expected from row 0"]
    assert faults([replace(numbered((first,))[0], number=1)]) == ["the plan's unit at place 0 has number 1"]
    empty = replace(other, rows=0)
    apart = ["unit 2 plans b.jsonl.gz rows 20 to 24 apart from the rows before them"]
    assert faults(numbered((first,), (empty,), (second,))) == apart


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
