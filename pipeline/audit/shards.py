"""One shard and its dead letters, audited without the input: bytes, schema, footer, row keys, vectors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.audit.coding import Coding
from pipeline.audit.manifest import Entry
from pipeline.audit.row_keys import Positions, index_by_position, key_faults, positions
from pipeline.audit.vectors import vector_faults
from pipeline.fingerprint import content_digest, sha256
from pipeline.plan import Plan
from pipeline.records import Unit
from pipeline.schema import DEAD_SCHEMA
from pipeline.storage import Store

FORMAT = "1"
_PREFIX = b"embatch."
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNREADABLE = (pa.ArrowException, OSError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardAudit:
    """What was found of one unit.

    `table` is None where the shard is missing or cannot be used, `dead_codes` where the dead letters cannot.
    `row_at` and `dead_at` give, for each row of the unit in plan order, its index there, or -1.
    `description` is what the footer says of the encoder: the same in every shard of an output.
    """

    unit: Unit
    key: str
    present: bool
    findings: tuple[str, ...] = ()
    table: pa.Table | None = None
    row_at: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    dead_codes: list[str] | None = None
    dead_at: Positions = field(default_factory=lambda: np.empty(0, np.int64))
    content_digest: str | None = None
    description: Mapping[str, str] = field(default_factory=dict)


class _UnusableError(Exception):
    """Why an object cannot be used at all; becomes a finding."""


def shard_key(plan_id: str, unit: int) -> str:
    """Where the documented layout puts a unit's shard."""
    return f"data/part-{unit:08d}-{plan_id[:12]}.parquet"


def audit_shard(store: Store, plan: Plan, unit: Unit, stated: Entry | None, coding: Coding) -> ShardAudit:
    """Read one shard and its dead letters and check all that needs no input.

    `stated` is the manifest's entry of the unit, None where there is none.
    """
    key = shard_key(plan.plan_id, unit.number)
    data = store.read(key)
    if data is None:
        return ShardAudit(unit=unit, key=key, present=False)
    entry = asdict(stated) if stated else {}
    found: dict[str, object] = {"key": key, "size_bytes": len(data), "sha256": sha256(data)}
    try:
        table, counts, description = _open(data, unit, plan, coding)
    except _UnusableError as error:
        findings = (*_contradictions(key, "the manifest", entry, found), f"{key}: {error}")
        return ShardAudit(unit=unit, key=key, present=True, findings=findings)
    found |= {**_row_facts(table), "calibration": description.get("calibration")}
    if plan.resolved["encoder"]["kind"] == "remote":
        del found["tokens"]  # only the API counted them, for the unit as a whole
    findings, letters = (), None
    try:
        letters, facts = _dead_letters(store, unit, counts)
        found |= {**facts, "rows_in": len(table) + len(letters)}
    except _UnusableError as error:
        findings = (f"{key}: {error}",)
    rows = (table, positions(unit, table))
    dead = None if letters is None else (letters, positions(unit, letters))
    return ShardAudit(
        unit=unit,
        key=key,
        present=True,
        findings=(
            *_contradictions(key, "the manifest", entry, found),
            *_contradictions(key, "its footer", counts, found),
            *findings,
            *key_faults(key, unit, rows, dead),
            *vector_faults(key, table, coding, normalized=description["normalized"] == "true"),
        ),
        table=table,
        row_at=index_by_position(unit, rows[1]),
        dead_codes=None if dead is None else dead[0]["code"].to_pylist(),
        dead_at=np.full(unit.rows, -1) if dead is None else index_by_position(unit, dead[1]),
        content_digest=str(found["content_digest"]),
        description=description,
    )


def _open(data: bytes, unit: Unit, plan: Plan, coding: Coding) -> tuple[pa.Table, dict[str, Any], dict[str, str]]:
    """Decode a shard of this plan and unit: its rows, the counts its footer states, and its description.

    Raises:
        _UnusableError: it is not this unit's shard, or cannot be decoded.
    """
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        footer = _embatch_metadata(parquet.metadata.metadata or {})
        _check_belongs(footer, parquet.schema_arrow, unit, plan)
        _check_coding(footer, coding)
        table = parquet.read().replace_schema_metadata().combine_chunks()
        table.validate(full=True)
        counts = json.loads(footer["counts"])
        description = {name: value for name, value in footer.items() if name not in ("unit", "counts")}
        return table, dict(counts), description
    except KeyError as error:
        raise _UnusableError(f"its footer does not say embatch.{error.args[0]}") from None
    except _UNREADABLE as error:
        raise _UnusableError(f"cannot be read: {error}") from error


def _embatch_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    return {
        name.removeprefix(_PREFIX).decode(): value.decode()
        for name, value in metadata.items()
        if name.startswith(_PREFIX)
    }


def _check_belongs(footer: Mapping[str, str], schema: pa.Schema, unit: Unit, plan: Plan) -> None:
    if footer["format"] != FORMAT:
        raise _UnusableError(f"has shard format {footer['format']!r}; this embatch reads {FORMAT}")
    encoder = plan.resolved["encoder"]
    normalized = bool(encoder["heads"]) and encoder["heads"][-1]["type"] == "normalize"
    expected = {
        "plan_id": plan.plan_id,
        "unit": str(unit.number),
        "model": encoder["model"],
        "dimension": str(encoder["dimension"]),
        "normalized": str(normalized).lower(),
    }
    for name, value in expected.items():
        if footer[name] != value:
            raise _UnusableError(f"its footer says {name} {footer[name]}, expected {value}")
    if not schema.equals(plan.schema):
        raise _UnusableError(f"its columns are [{_columns(schema)}], planned [{_columns(plan.schema)}]")


def _check_coding(footer: Mapping[str, str], coding: Coding) -> None:
    if footer.get("vectors", "float32") != coding.vectors:
        raise _UnusableError(f"its footer says vectors {footer.get('vectors')}, expected {coding.vectors}")
    if not coding.known:
        return
    for name in ("calibration", "scale", "offset"):
        if footer.get(name) != coding.footer.get(name):
            raise _UnusableError(f"its footer says another {name} than the job's calibration")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name}: {column.type}" + ("" if column.nullable else " not null") for column in schema)


def _row_facts(table: pa.Table) -> dict[str, object]:
    return {
        "rows_ok": len(table),
        "tokens": pc.sum(table["n_tokens"]).as_py() or 0,
        "truncated": pc.sum(table["truncated"]).as_py() or 0,
        "content_digest": content_digest(table),
    }


def _dead_letters(store: Store, unit: Unit, counts: Mapping[str, Any]) -> tuple[pa.Table, dict[str, object]]:
    """Read the dead letters that a footer names, and describe what was found as a footer would.

    Raises:
        _UnusableError: they are missing or cannot be decoded.
    """
    key, stated = counts.get("dead_key"), str(counts.get("dead_sha256"))
    if key is None:
        return DEAD_SCHEMA.empty_table(), {"dead_by_code": {}, "dead_key": None, "dead_sha256": None}
    if not _SHA256.fullmatch(stated) or key != f"_dead/part-{unit.number:08d}-{stated[:12]}.parquet":
        raise _UnusableError(f"its footer names dead letters {key!r} with sha256 {stated!r}")
    data = store.read(key)
    if data is None:
        raise _UnusableError(f"its dead letters {key} are missing")
    try:
        letters = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        letters.validate(full=True)
    except _UNREADABLE as error:
        raise _UnusableError(f"its dead letters {key} cannot be read: {error}") from error
    if not letters.schema.equals(DEAD_SCHEMA):
        raise _UnusableError(f"its dead letters {key} have columns [{_columns(letters.schema)}]")
    by_code = dict(Counter(letters["code"].to_pylist()))
    return letters, {"dead_by_code": by_code, "dead_key": key, "dead_sha256": sha256(data)}


def _contradictions(key: str, witness: str, stated: Mapping[str, Any], found: Mapping[str, object]) -> list[str]:
    wrong = [
        f"{name} {stated[name]} (found {value})"
        for name, value in found.items()
        if name in stated and stated[name] != value
    ]
    return [f"{key}: {witness} says {', '.join(wrong)}"] if wrong else []
