"""The same job over the same input is the same plan; anything else is told apart, key by key and file by file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import make_rows, write_jsonl

from pipeline.config import JobConfig, parse_job
from pipeline.corpus import CorpusFiles
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.hashing import resolve
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, PlanChangedError, SourceReadError
from pipeline.plan import InputDrift, Plan, check_unchanged, input_drift, make_plan, publish
from pipeline.plan.making import MAX_UNIT_ROWS, MIN_UNIT_ROWS, default_unit_rows
from pipeline.schema import bytes_a_vector
from pipeline.storage import open_store

CPU = Device(kind="cpu", bf16=False)


def changed(job: dict[str, Any], path: str, value: object) -> JobConfig:
    """Return the job with one key set."""
    section, _, key = path.partition(".")
    return parse_job({**job, section: {**job.get(section, {}), key: value} if key else value})


def plan_of(job: dict[str, Any], **keys: object) -> Plan:
    return make_plan(parse_job({**job, **keys}), CPU)


def listing_of(job: dict[str, Any]):
    return CorpusFiles(job["input"]["uri"]).discover()


def test_same_job_gives_byte_identical_files(job, tmp_path):
    written = []
    for name in ("one", "other"):
        publish(open_store(str(tmp_path / name)), plan_of(job))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert written[0] == written[1]


def test_every_row_of_the_corpus_is_in_one_unit(job):
    plan = plan_of(job)
    assert [unit.rows for unit in plan.units] == [25] * 12
    assert [unit.number for unit in plan.units] == list(range(12))
    assert [source.path for source in plan.sources] == ["a.jsonl", "b.jsonl.gz", "c.parquet"]
    assert plan.schema.field("year").type == pa.int64()


@pytest.mark.parametrize(
    ("path", "value"),
    [("name", "another"), ("limits.max_dead_rate", 0.5), ("cluster.replicas", 7), ("output.uri", "elsewhere")],
)
def test_keys_that_do_not_change_the_output_are_no_part_of_the_plan(job, path, value):
    plan, config = plan_of(job), changed(job, path, value)
    assert make_plan(config, CPU).plan_id == plan.plan_id
    check_unchanged(config, plan, "out")


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("input.text", "{text}!", 'input.text: "text" -> "{text}!"'),
        ("input.id", "id", 'input.id: null -> "id"'),
        ("input.csv", {"delimiter": ";"}, 'input.csv.delimiter: absent -> ";"'),
        ("input.keep", [], 'input.keep: ["year"] -> []'),
        ("input.limit", 5, "input.limit: null -> 5"),
        ("input.max_text_bytes", 5, "input.max_text_bytes: 33554432 -> 5"),
        ("encoder.model", "hashing:8", 'encoder.model: "hashing:16" -> "hashing:8"'),
        ("encoder.max_seq_length", 64, "encoder.max_seq_length: null -> 64"),
        ("encoder.pooling", "cls", 'encoder.pooling: "auto" -> "cls"'),
        ("encoder.dtype", "float32", 'encoder.dtype: "auto" -> "float32"'),
        ("encoder.brackets", "query", 'encoder.brackets: absent -> "query"'),
        ("encoder.trust_remote_code", True, "encoder.trust_remote_code: absent -> true"),
        ("encoder.max_batch_tokens", 64, 'encoder.max_batch_tokens: "auto" -> 64'),
        ("encoder.truncate_dim", 8, "encoder.truncate_dim: null -> 8"),
        ("output.vectors", "int8", 'output.vectors: absent -> "int8"'),
        ("text.long", "reject", 'text.long: "truncate" -> "reject"'),
        ("output.unit_rows", 26, "output.unit_rows: 25 -> 26"),
        ("output.unit_bytes", 2048, "output.unit_bytes: 67108864 -> 2048"),
    ],
)
def test_changed_key_is_refused_by_its_path_and_both_values(job, path, value, line):
    with pytest.raises(PlanChangedError) as caught:
        check_unchanged(changed(job, path, value), plan_of(job), "out")
    assert caught.value.differences == [line]
    assert f"\n  {line}\n" in str(caught.value)


def test_changed_prompt_is_refused(job):
    planned = plan_of(job, encoder={"model": "hashing:16", "prompt": "query: "})
    with pytest.raises(PlanChangedError, match=r'encoder\.prompt\.text: "query: " -> "passage: "'):
        check_unchanged(parse_job({**job, "encoder": {"model": "hashing:16", "prompt": "passage: "}}), planned, "out")
    with pytest.raises(PlanChangedError, match=r"encoder\.prompt"):
        check_unchanged(parse_job(job), planned, "out")


def test_plan_from_before_vectors_could_be_compact_goes_on(job):
    plan = plan_of(job)
    old = {name: {**section} for name, section in plan.requested.items() if isinstance(section, dict)}
    del old["encoder"]["truncate_dim"]
    check_unchanged(parse_job(job), replace(plan, requested={**plan.requested, **old}), "out")


@pytest.mark.parametrize(
    ("vectors", "kind"), [("float32", "float"), ("float16", "halffloat"), ("int8", "int8"), ("binary", "uint8")]
)
def test_vectors_are_planned_as_they_will_be_stored(job, vectors, kind):
    plan = make_plan(changed(job, "output.vectors", vectors), CPU)
    assert plan.vectors == vectors
    assert str(plan.schema.field("embedding").type.value_type) == kind
    assert bytes_a_vector(plan.schema) == {"float32": 64, "float16": 32, "int8": 16, "binary": 2}[vectors]


def test_signs_that_fill_no_whole_bytes_are_refused(job):
    config = changed({**job, "encoder": {"model": "hashing:16", "truncate_dim": 12}}, "output.vectors", "binary")
    with pytest.raises(ConfigError, match=r"output\.vectors: binary packs 8 numbers into a byte, and 12 do not"):
        make_plan(config, CPU)


def test_other_encoding_version_is_refused(job, monkeypatch):
    plan = plan_of(job)
    monkeypatch.setattr("pipeline.fingerprint.ENCODING_VERSION", 1000)
    with pytest.raises(PlanChangedError, match="encoding_version: 3 -> 1000"):
        check_unchanged(parse_job(job), plan, "out")


def test_unchanged_input_has_no_drift(job):
    assert input_drift(plan_of(job), listing_of(job)) == InputDrift(added=[], changed={})


def test_files_changed_gone_and_added_are_told_apart(job, corpus):
    plan = plan_of(job)
    size = (corpus / "a.jsonl").stat().st_size
    with (corpus / "a.jsonl").open("ab") as file:
        file.write(b"{}\n")
    (corpus / "b.jsonl.gz").unlink()
    os.utime(corpus / "c.parquet", ns=(1, 1))
    write_jsonl(corpus / "new" / "d.jsonl", make_rows(0, 1))
    drift = input_drift(plan, listing_of(job))
    assert drift.added == ["new/d.jsonl"]
    assert drift.changed.keys() == {"a.jsonl", "b.jsonl.gz", "c.parquet"}
    assert drift.changed["a.jsonl"] == f"a.jsonl: size {size} -> {size + 3}"
    assert drift.changed["b.jsonl.gz"] == "b.jsonl.gz: is gone"
    assert drift.changed["c.parquet"].startswith("c.parquet: rewritten (")


@pytest.mark.parametrize("limit", [1, 24, 25, 26, 100, 130, 299, 300, 1000])
def test_limit_plans_the_first_rows_and_says_it_is_a_trial(job, limit):
    whole, plan = plan_of(job), make_plan(changed(job, "input.limit", limit), CPU)
    assert (plan.trial, whole.trial) == (True, False)
    assert plan.rows == min(limit, 300)
    pieces = [piece for unit in plan.units for piece in unit.slices]
    assert [(piece.source, piece.first_row) for piece in pieces] == [
        (unit.slices[0].source, unit.slices[0].first_row) for unit in whole.units[: len(pieces)]
    ]


def test_files_beyond_a_limit_are_no_drift(job):
    plan = make_plan(changed(job, "input.limit", 10), CPU)
    assert input_drift(plan, listing_of(job)) == InputDrift(added=[], changed={})


def test_corpus_without_rows_is_planned(job, tmp_path):
    for name in ("empty.jsonl", "other.jsonl.gz"):
        (tmp_path / "nothing").mkdir(exist_ok=True)
        (tmp_path / "nothing" / name).write_bytes(b"")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "nothing/z.parquet")
    plan = plan_of(job, input={"uri": str(tmp_path / "nothing")})
    assert (plan.rows, len(plan.units)) == (0, 1)


def test_damaged_file_among_good_ones_stops_the_plan(job, corpus):
    (corpus / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(SourceReadError, match=r"bad\.jsonl\.gz"):
        plan_of(job)


@pytest.mark.parametrize("name", ["embedding", "source_row", "id"])
def test_kept_column_with_a_name_of_ours_is_refused(job, tmp_path, name):
    write_jsonl(tmp_path / "clash/a.jsonl", [{"text": "a", name: 1}])
    with pytest.raises(ConfigError, match=f"input.keep: '{name}' is a column embatch writes itself"):
        plan_of(job, input={"uri": str(tmp_path / "clash"), "keep": [name]})


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("flops", [1, 10**6, 3 * 10**8, 10**10, 10**14])
def test_default_unit_is_a_power_of_two_within_bounds(kind, flops):
    spec = resolve("hashing:4", "")
    rows = default_unit_rows(
        type(spec)(**{**spec.identity(), "folder": "", "flops_per_token": flops}), Device(kind=kind, bf16=False)
    )
    assert MIN_UNIT_ROWS <= rows <= MAX_UNIT_ROWS
    assert rows & (rows - 1) == 0


def test_default_unit_is_smaller_where_products_are_slower():
    identity = {**resolve("hashing:4", "").identity(), "flops_per_token": 3 * 10**7}
    specs = [EncoderSpec.from_identity({**identity, "dtype": dtype}, folder="") for dtype in ("bfloat16", "float32")]
    fast, slow = (default_unit_rows(spec, Device(kind="cpu", bf16=True)) for spec in specs)
    assert slow < fast


def test_plan_does_not_depend_on_where_relative_the_input_was_named(job, corpus, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    relative = plan_of(job, input={"uri": "corpus", "keep": ["year"]})
    assert relative.units == plan_of(job).units


def test_planning_writes_nothing(job, tmp_path):
    before = sorted(Path(tmp_path).rglob("*"))
    plan_of(job)
    assert sorted(Path(tmp_path).rglob("*")) == before
