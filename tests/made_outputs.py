"""Outputs made without Ray, to be damaged: the read step and the commit are the real ones, driven unit by unit."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import plan as plans
from pipeline import shard
from pipeline.audit import VerifyReport, verify
from pipeline.calibration import Calibration, calibrate
from pipeline.checkpoint import calibrations, commits, manifest
from pipeline.config import JobConfig, parse_job
from pipeline.encoders import precision
from pipeline.encoders.base import Encoded
from pipeline.encoders.hashing import HashingEncoder
from pipeline.encoders.registry import spec_of
from pipeline.plan import Plan
from pipeline.ray_data import payload
from pipeline.ray_data.assembling import assemble, usable
from pipeline.ray_data.order import WorkOrder, describe, make_order
from pipeline.ray_data.reading import read_sample, read_units
from pipeline.records import Receipt, Unit
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


def job(corpus: Path | str, output: Path | str, /, **sections: Mapping[str, Any]) -> JobConfig:
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
        made = encode(order, payload.from_row(row), unit)
        receipts.append(commits.commit(store, made, plan.plan_id))
    manifest.publish(store, plan.plan_id, receipts, single_writer=False)
    return plan


def calibrated(plan: Plan, order: WorkOrder) -> Calibration:
    encoder = HashingEncoder(spec_of(plan.resolved["encoder"]))
    sample = [encoder.encode(read_sample(unit, count, order)) for unit, count in plans.sample_units(plan.units)]
    return calibrate(plan.plan_id, plan.vectors, plan.resolved["encoder"]["dimension"], sample)


def encode(order: WorkOrder, work: payload.Payload, unit: Unit) -> shard.Shard:
    spec = spec_of(order.encoder)
    vectors = HashingEncoder(spec).encode(work.prepared)
    return assemble(order, unit, work, Encoded(vectors=vectors), usable(vectors, normalized=spec.normalized))


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
