"""The manifest against the plan and against itself; the shards are compared with its entries elsewhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fingerprint import combine_digests, sha256
from pipeline.plan import Plan
from pipeline.storage import Store

FORMAT = 1
HEAD = "_job/manifest.json"
_PART_KEY = re.compile(r"_job/manifest/part-\d{5}-[0-9a-f]{12}\.parquet")
_MALFORMED = (KeyError, TypeError, ValueError, OSError, pa.ArrowException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the manifest states of one unit."""

    unit: int
    key: str
    size_bytes: int
    sha256: str
    content_digest: str
    rows_in: int
    rows_ok: int
    tokens: int
    truncated: int
    chars: int
    chars_lost: int
    dead_by_code: dict[str, int]
    dead_key: str | None
    dead_sha256: str | None
    clipped: int = 0
    scripts: dict[str, int] = field(default_factory=dict)
    calibration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAudit:
    """A manifest as it was found; `entries` by unit, empty where it cannot be read."""

    present: bool
    entries: dict[int, Entry]
    findings: list[str]


def audit_manifest(store: Store, plan: Plan) -> ManifestAudit:
    """Read the manifest and check it against the plan and its own sums."""
    data = store.read(HEAD)
    if data is None:
        return ManifestAudit(present=False, entries={}, findings=[])
    findings: list[str] = []
    entries: list[Entry] = []
    try:
        head = json.loads(data)
        if head["format"] != FORMAT:
            findings.append(f"{HEAD} has format {head['format']!r}; this embatch reads {FORMAT}")
        else:
            entries = [entry for part in head["parts"] for entry in _entries(store, part, findings)]
            if not findings:
                findings += _against_plan(head, entries, plan) + _against_sums(head, entries)
    except _MALFORMED as error:
        findings.append(f"{HEAD} cannot be read: {type(error).__name__}: {error}")
    return ManifestAudit(present=True, entries={entry.unit: entry for entry in entries}, findings=findings)


def _entries(store: Store, part: Mapping[str, Any], findings: list[str]) -> list[Entry]:
    key = part["key"]
    data = store.read(key) if _PART_KEY.fullmatch(key) else None
    if data is None:
        findings.append(f"{HEAD} names {key!r}, which is missing")
        return []
    if sha256(data) != part["sha256"]:
        findings.append(f"{key} has sha256 {sha256(data)}, its head says {part['sha256']}")
        return []
    rows = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read().to_pylist()
    counts = [name for name in ("dead_by_code", "scripts") if name in rows[0]] if rows else []
    return [Entry(**{**row, **{name: json.loads(row[name]) for name in counts}}) for row in rows]


def _against_plan(head: Mapping[str, Any], entries: Sequence[Entry], plan: Plan) -> list[str]:
    findings = []
    if head["plan_id"] != plan.plan_id:
        findings.append(f"{HEAD} is of plan {head['plan_id']}, the stored plan is {plan.plan_id}")
    planned = [unit.number for unit in plan.units]
    listed = [entry.unit for entry in entries]
    counts = Counter(listed)
    findings += [f"{HEAD} does not list unit {unit}" for unit in planned if unit not in counts]
    findings += [f"{HEAD} lists unit {unit}, which is not in the plan" for unit in sorted(counts.keys() - set(planned))]
    findings += [f"{HEAD} lists unit {unit} {count} times" for unit, count in sorted(counts.items()) if count > 1]
    if not findings and listed != planned:
        findings.append(f"{HEAD} does not list the units in the plan's order")
    return findings


def _against_sums(head: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    dead: Counter[str] = Counter()
    for entry in entries:
        dead.update(entry.dead_by_code)
    sums = {
        "units": len(entries),
        "rows_in": sum(entry.rows_in for entry in entries),
        "rows_ok": sum(entry.rows_ok for entry in entries),
        "tokens": sum(entry.tokens for entry in entries),
        "truncated": sum(entry.truncated for entry in entries),
        "chars": sum(entry.chars for entry in entries),
        "chars_lost": sum(entry.chars_lost for entry in entries),
        "dead_by_code": dict(dead),
        "content_digest": combine_digests(entry.content_digest for entry in entries),
    }
    return [
        f"{HEAD} says {name} {head[name]!r}, its entries give {found!r}"
        for name, found in sums.items()
        if head[name] != found
    ]
