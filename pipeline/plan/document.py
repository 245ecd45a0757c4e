"""The plan as an object and as files: a canonical create-only head that names create-only Parquet parts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import failpoints, fingerprint, schema
from pipeline.exceptions import ConfigError, DamagedOutputError, PlanChangedError
from pipeline.records import Format, Slice, SourceFile, Unit
from pipeline.storage import Store

FORMAT = 1
HEAD = "_job/plan.json"
PARTS = "_job/plan"
SERIES = "_series"
"""Below a series of outputs: their names, in order."""
PART_UNITS = 10_000
SEAL = "sha256"
_HEAD_KEYS = {"format", "requested", "resolved", "schema", "columns", "trial", "units", "rows", "parts"}

_PART_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_size", pa.int64(), nullable=False),
        pa.field("source_etag", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("compression", pa.string()),
        pa.field("partitions", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
    ]
)
_SLICE = _PART_SCHEMA.names[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One job's units and identity.

    `requested` is what the job file asked for, `resolved` what that was taken to mean (model files,
    precision, sizes); together with the units they are the output's identity.
    """

    plan_id: str
    requested: dict[str, Any]
    resolved: dict[str, Any]
    schema: pa.Schema
    units: list[Unit]
    part_keys: tuple[str, ...]
    trial: bool

    @property
    def rows(self) -> int:
        """Rows of all units."""
        return sum(unit.rows for unit in self.units)

    @property
    def vectors(self) -> str:
        """How vectors are stored, in the words of `output.vectors`."""
        return schema.vectors_of(self.schema)

    @property
    def in_series(self) -> bool:
        """Whether it holds what other outputs of a growing input do not."""
        return bool(self.requested["output"].get("series"))

    @property
    def sources(self) -> list[SourceFile]:
        """Source files, each once, in order."""
        return list(dict.fromkeys(piece.source for unit in self.units for piece in unit.slices))


def shard_key(plan_id: str, unit: int) -> str:
    """Where a unit's shard lies; made of the plan alone."""
    return f"data/part-{unit:08d}-{plan_id[:12]}.parquet"


def build(requested: dict[str, Any], resolved: dict[str, Any], output_schema: pa.Schema, units: list[Unit]) -> Plan:
    """Compute a plan and its id; writes nothing."""
    head, parts = _serialize(requested, resolved, output_schema, units)
    return Plan(
        plan_id=fingerprint.sha256(head),
        requested=requested,
        resolved=resolved,
        schema=output_schema,
        units=units,
        part_keys=tuple(parts),
        trial=_is_trial(requested),
    )


def publish(store: Store, plan: Plan) -> None:
    """Create the plan's parts, then its head; an equal plan that is there already is success.

    Raises:
        PlanChangedError: another plan was stored in the meantime.
    """
    head, parts = _serialize(plan.requested, plan.resolved, plan.schema, plan.units)
    for key, data in parts.items():
        store.create(key, data)  # named by its content: taken means it is there
    failpoints.hit("plan.before_head")
    if not store.create(HEAD, head):
        stored = load(store)
        if stored is None or stored.plan_id != plan.plan_id:
            raise PlanChangedError(store.uri, ["another run planned this output a moment ago"])


def load(store: Store) -> Plan | None:
    """Read the stored plan; None where the output has none.

    Raises:
        DamagedOutputError: the head or a part is not what it was when it was written.
    """
    data = store.read(HEAD)
    if data is None:
        return None
    try:
        head = json.loads(data)
        version = head["format"]
        if version != FORMAT:
            raise DamagedOutputError(store.uri, [f"{HEAD} has format {version}; this embatch reads {FORMAT}"])
        if fingerprint.canonical_json(head) != data or not _is_sealed(head):
            raise DamagedOutputError(store.uri, [f"{HEAD} is altered"])
        return Plan(
            plan_id=fingerprint.sha256(data),
            requested=head["requested"],
            resolved=head["resolved"],
            schema=schema.decode_schema(head["schema"]),
            units=[unit for part in head["parts"] for unit in _load_part(store, part)],
            part_keys=tuple(part["key"] for part in head["parts"]),
            trial=head["trial"],
        )
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise DamagedOutputError(store.uri, [f"{HEAD} is not a plan: {error!r}"]) from error


def stored_id(store: Store) -> str | None:
    """Return the id of the stored plan without reading its units; None where the output has none."""
    head = store.read(HEAD)
    return None if head is None else fingerprint.sha256(head)


def require(store: Store) -> Plan:
    """Read the stored plan of an output that must have one.

    Raises:
        ConfigError: it has none.
    """
    plan = load(store)
    if plan is None:
        series = "; it is a series, so name one of the outputs below it" if store.list(SERIES) else ""
        raise ConfigError("OUTPUT", f"{store.uri!r} holds no embatch output (no {HEAD}){series}")
    return plan


def _serialize(
    requested: dict[str, Any], resolved: dict[str, Any], output_schema: pa.Schema, units: list[Unit]
) -> tuple[bytes, dict[str, bytes]]:
    parts, entries = {}, []
    for index in range(0, len(units), PART_UNITS):
        chunk = units[index : index + PART_UNITS]
        data = _part_bytes(chunk)
        digest = fingerprint.sha256(data)
        key = f"{PARTS}/part-{index // PART_UNITS:05d}-{digest[:12]}.parquet"
        parts[key] = data
        entries.append({"key": key, "sha256": digest, "units": len(chunk), "rows": sum(unit.rows for unit in chunk)})
    head = {
        "format": FORMAT,
        "requested": requested,
        "resolved": resolved,
        "schema": schema.encode_schema(output_schema),
        "columns": [f"{field.name}: {field.type}" for field in output_schema],
        "trial": _is_trial(requested),
        "units": len(units),
        "rows": sum(unit.rows for unit in units),
        "parts": entries,
    }
    return fingerprint.canonical_json({**head, SEAL: _seal(head)}), parts


def _seal(head: dict[str, Any]) -> str:
    """Return what the head says of its own bytes: the plan's id is their hash, and nothing else would tell damage."""
    return fingerprint.sha256(fingerprint.canonical_json(head))


def _is_sealed(head: dict[str, Any]) -> bool:
    """Tell whether a head is what was written; one from before there were seals has exactly the other keys."""
    rest = {key: value for key, value in head.items() if key != SEAL}
    return rest.keys() == _HEAD_KEYS and head.get(SEAL, _seal(rest)) == _seal(rest)


def _part_bytes(units: list[Unit]) -> bytes:
    rows = [
        (
            unit.number,
            unit.group,
            piece.source.path,
            piece.source.size,
            piece.source.etag,
            str(piece.source.format),
            piece.source.compression,
            json.dumps(piece.source.partitions),
            piece.first_row,
            piece.rows,
            piece.size_bytes,
            piece.start,
            piece.end,
        )
        for unit in units
        for piece in unit.slices
    ]
    columns = list(zip(*rows, strict=True)) or [() for _ in _PART_SCHEMA]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _PART_SCHEMA, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=_PART_SCHEMA), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _load_part(store: Store, entry: dict[str, Any]) -> Iterator[Unit]:
    data = store.read(entry["key"])
    if data is None or fingerprint.sha256(data) != entry["sha256"]:
        raise DamagedOutputError(store.uri, [f"{entry['key']} is {'missing' if data is None else 'altered'}"])
    table = pq.ParquetFile(io.BytesIO(data)).read()
    sources: dict[str, SourceFile] = {}
    # column by column: a hundred thousand units load in a second
    pieces = [_load_slice(row, sources) for row in zip(*map(_values, table.select(_SLICE).columns), strict=True)]
    owners = zip(_values(table["unit"]), _values(table["group"]), strict=True)
    for (number, group), members in groupby(zip(owners, pieces, strict=True), key=itemgetter(0)):
        yield Unit(number=number, group=group, slices=tuple(piece for _, piece in members))


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _load_slice(row: tuple[Any, ...], sources: dict[str, SourceFile]) -> Slice:
    path, size, etag, file_format, compression, partitions, first_row, rows, size_bytes, start, end = row
    source = sources.get(path)
    if source is None:
        source = sources[path] = SourceFile(
            path=path,
            size=size,
            etag=etag,
            format=Format(file_format),
            compression=compression,
            partitions=tuple((name, value) for name, value in json.loads(partitions)),
        )
    return Slice(source=source, first_row=first_row, rows=rows, size_bytes=size_bytes, start=start, end=end)


def _is_trial(requested: dict[str, Any]) -> bool:
    return requested["input"]["limit"] is not None
