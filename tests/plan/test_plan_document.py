"""A plan is its bytes: equal plans are equal files, and what is stored loads back or is called damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.exceptions import ConfigError, DamagedOutputError, PlanChangedError
from pipeline.fingerprint import canonical_json
from pipeline.plan import document
from pipeline.plan.document import HEAD, SEAL, Plan, build, load, publish, require, shard_key
from pipeline.records import Format, Slice, SourceFile, Unit
from pipeline.schema import output_schema
from pipeline.storage import open_store

REQUESTED = {"input": {"limit": None, "uri": "corpus"}, "encoder": {"model": "hashing:4"}}
RESOLVED = {"unit_rows": 10, "encoder": {"dimension": 4}}
SCHEMA = output_schema({"section": pa.string(), "tags": pa.list_(pa.int32())}, 4)


def source(path: str = "a.jsonl") -> SourceFile:
    return SourceFile(path=path, size=5, etag="e", format=Format.JSONL)


def make_units(count: int) -> list[Unit]:
    return [
        Unit(number=number, group=number // 3, slices=(Slice(source=source(), first_row=number, rows=1, size_bytes=9),))
        for number in range(count)
    ]


def make_plan(units: list[Unit] | None = None) -> Plan:
    return build(REQUESTED, RESOLVED, SCHEMA, make_units(3) if units is None else units)


def store_in(folder: Path):
    return open_store(str(folder))


def stored_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_equal_plans_are_stored_as_equal_bytes(tmp_path):
    for name in ("one", "other"):
        publish(store_in(tmp_path / name), make_plan())
    assert stored_files(tmp_path / "one") == stored_files(tmp_path / "other")
    assert len(stored_files(tmp_path / "one")) == 2


def test_publishing_again_changes_nothing(tmp_path):
    plan = make_plan()
    publish(store_in(tmp_path), plan)
    before = stored_files(tmp_path)
    publish(store_in(tmp_path), plan)
    assert stored_files(tmp_path) == before


def test_second_plan_of_an_output_is_refused(tmp_path):
    publish(store_in(tmp_path), make_plan())
    with pytest.raises(PlanChangedError, match="another run planned this output"):
        publish(store_in(tmp_path), make_plan(make_units(4)))
    assert load(store_in(tmp_path)) == make_plan()


def test_output_without_a_plan_loads_as_none(tmp_path):
    assert load(store_in(tmp_path)) is None
    with pytest.raises(ConfigError, match="holds no embatch output"):
        require(store_in(tmp_path))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
sources = st.builds(
    SourceFile,
    path=words,
    size=st.integers(0, 2**62),
    etag=words,
    format=st.sampled_from(Format),
    compression=st.none() | st.sampled_from(["gzip", "zstd"]),
    partitions=st.lists(st.tuples(words, st.none() | words), max_size=2).map(tuple),
)
numbers = st.integers(0, 2**62)


@st.composite
def unit_lists(draw: st.DrawFn) -> list[Unit]:
    """Units over files with distinct paths."""
    files = draw(st.lists(sources, min_size=1, max_size=3, unique_by=lambda each: each.path))
    slices = st.builds(
        Slice,
        source=st.sampled_from(files),
        first_row=numbers,
        rows=numbers,
        size_bytes=numbers,
        start=numbers,
        end=numbers,
    )
    pieces = draw(st.lists(st.lists(slices, min_size=1, max_size=3).map(tuple), max_size=6))
    return [Unit(number=number, group=draw(st.integers(0, 3)), slices=piece) for number, piece in enumerate(pieces)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units=unit_lists(), part=st.integers(1, 4))
def test_stored_plan_loads_back_equal(tmp_path_factory, units, part):
    store = store_in(tmp_path_factory.mktemp("out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "PART_UNITS", part)
        plan = make_plan(units)
        publish(store, plan)
    assert load(store) == plan
    assert len(plan.part_keys) == -(-len(units) // part)


@settings(max_examples=40, deadline=None)
@given(units=unit_lists())
def test_unit_travels_as_json(units):
    assert [Unit.from_json(unit.to_json()) for unit in units] == units


def test_slice_is_shown_by_file_and_rows():
    assert str(make_units(3)[2].slices[0]) == "a.jsonl rows 2 to 2"


def test_many_units_span_several_parts(tmp_path):
    plan = make_plan(make_units(25_000))
    publish(store_in(tmp_path), plan)
    assert len(plan.part_keys) == 3
    assert set(plan.part_keys) | {HEAD} == stored_files(tmp_path).keys()
    assert load(store_in(tmp_path)) == plan


def test_head_counts_what_the_parts_hold(tmp_path):
    publish(store_in(tmp_path), make_plan())
    head = json.loads((tmp_path / HEAD).read_bytes())
    assert (head["format"], head["units"], head["rows"], head["trial"]) == (1, 3, 3, False)
    assert "section: string" in head["columns"]
    assert make_plan().rows == 3
    assert make_plan().sources == [source()]


@pytest.mark.parametrize(
    ("requested", "resolved", "schema", "units"),
    [
        ({**REQUESTED, "text": {"long": "reject"}}, RESOLVED, SCHEMA, 3),
        (REQUESTED, {**RESOLVED, "unit_rows": 11}, SCHEMA, 3),
        (REQUESTED, RESOLVED, output_schema({"section": pa.string()}, 4), 3),
        (REQUESTED, RESOLVED, SCHEMA, 2),
    ],
    ids=["requested", "resolved", "schema", "units"],
)
def test_whatever_changes_the_output_changes_the_plan_id(requested, resolved, schema, units):
    assert build(requested, resolved, schema, make_units(units)).plan_id != make_plan().plan_id


def test_shard_key_is_made_of_unit_number_and_plan_alone():
    assert shard_key("0123456789abcdef" * 4, 42) == "data/part-00000042-0123456789ab.parquet"


@pytest.mark.parametrize("damage", [b"", b"not Parquet"])
def test_altered_part_is_damage(tmp_path, damage):
    plan = make_plan()
    publish(store_in(tmp_path), plan)
    (tmp_path / plan.part_keys[0]).write_bytes(damage)
    with pytest.raises(DamagedOutputError, match=f"{plan.part_keys[0]} is altered"):
        load(store_in(tmp_path))


def test_missing_part_is_damage(tmp_path):
    plan = make_plan()
    publish(store_in(tmp_path), plan)
    (tmp_path / plan.part_keys[0]).unlink()
    with pytest.raises(DamagedOutputError, match="is missing"):
        load(store_in(tmp_path))


def test_flipped_bit_anywhere_in_a_part_is_damage(tmp_path):
    plan = make_plan()
    publish(store_in(tmp_path), plan)
    path = tmp_path / plan.part_keys[0]
    data = path.read_bytes()
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedOutputError, match="is altered"):
            load(store_in(tmp_path))


def without(head: dict, key: str) -> dict:
    return {name: value for name, value in head.items() if name != key}


def test_flipped_bit_anywhere_in_a_head_is_damage(tmp_path):
    publish(store_in(tmp_path), make_plan())
    data = (tmp_path / HEAD).read_bytes()
    for at in range(len(data)):
        (tmp_path / HEAD).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedOutputError, match=HEAD):
            load(store_in(tmp_path))


def test_head_from_before_there_were_seals_loads(tmp_path):
    publish(store_in(tmp_path), make_plan())
    head = json.loads((tmp_path / HEAD).read_bytes())
    (tmp_path / HEAD).write_bytes(canonical_json(without(head, SEAL)))
    found = load(store_in(tmp_path))
    assert (found.units, found.requested, found.resolved) == (make_plan().units, REQUESTED, RESOLVED)
    (tmp_path / HEAD).write_bytes(canonical_json({**without(head, SEAL), "sha255": head[SEAL]}))
    with pytest.raises(DamagedOutputError, match="is altered"):
        load(store_in(tmp_path))


@pytest.mark.parametrize(
    "alter",
    [
        lambda _: b"",
        lambda _: b"\xff",
        lambda _: b"[]",
        lambda _: b"{}",
        lambda head: json.dumps(head).encode(),
        lambda head: canonical_json({**head, "format": 2}),
        lambda head: canonical_json({**head, "schema": "AAAA"}),
        lambda head: canonical_json({**head, "schema": 5}),
        lambda head: canonical_json({**head, "parts": [{}]}),
        lambda head: canonical_json({**head, "parts": None}),
        lambda head: canonical_json(without(head, "requested")),
        lambda head: canonical_json(without(head, "trial")),
    ],
    ids=[
        *("empty", "binary", "list", "no keys", "reformatted", "format", "schema", "schema type"),
        *("part without key", "no parts", "no request", "no trial"),
    ],
)
def test_head_that_is_not_as_written_is_damage(tmp_path, alter):
    publish(store_in(tmp_path), make_plan())
    head = json.loads((tmp_path / HEAD).read_bytes())
    (tmp_path / HEAD).write_bytes(alter(head))
    with pytest.raises(DamagedOutputError, match=HEAD):
        load(store_in(tmp_path))
