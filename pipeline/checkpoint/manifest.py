"""The manifest: every shard with its counts and digests, created last. Its existence means complete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pipeline import failpoints
from pipeline.checkpoint.entries import from_parquet, to_parquet
from pipeline.exceptions import ConflictError, DamagedOutputError
from pipeline.fingerprint import canonical_json, combine_digests, sha256
from pipeline.records import DeadCode, Receipt, Unit
from pipeline.storage import Store

FORMAT = 1
HEAD = "_job/manifest.json"
PART_UNITS = 10_000
_COUNTS = ("units", "rows_in", "rows_ok")
_HEAD = {"plan_id": str, "dead_by_code": dict, "content_digest": str, "parts": object, **dict.fromkeys(_COUNTS, int)}
"""What readers go by, and of which type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over receipts."""

    units: int
    rows_in: int
    rows_ok: int
    tokens: int
    truncated: int
    chars: int
    chars_lost: int
    size_bytes: int
    clipped: int
    dead_by_code: dict[str, int]
    scripts: dict[str, int]

    @property
    def rows_dead(self) -> int:
        """Rows set aside, whatever the code."""
        return sum(self.dead_by_code.values())

    @property
    def tokens_lost(self) -> int:
        """An estimate: the characters lost, at as many characters a token as those that were read."""
        read = self.chars - self.chars_lost
        return round(self.tokens * self.chars_lost / read) if read else 0

    @property
    def rows_failed(self) -> int:
        """Rows that count against the limit: all dead letters but empty texts."""
        return self.rows_dead - self.dead_by_code.get(DeadCode.EMPTY, 0)


def total(receipts: Sequence[Receipt]) -> Totals:
    """Add receipts up."""
    dead: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    for receipt in receipts:
        if receipt.dead_by_code:
            dead.update(receipt.dead_by_code)
        scripts.update(receipt.scripts)
    counted = ("rows_in", "rows_ok", "tokens", "truncated", "chars", "chars_lost", "size_bytes", "clipped")
    sums = {name: sum(map(attrgetter(name), receipts)) for name in counted}
    by_code = dict(sorted(dead.items()))
    return Totals(units=len(receipts), dead_by_code=by_code, scripts=dict(scripts.most_common()), **sums)


def publish(store: Store, plan_id: str, receipts: Sequence[Receipt], *, single_writer: bool) -> dict[str, Any]:
    """Create the manifest's parts, then its head; an equal manifest that is there already is success.

    `receipts` are of all units, in unit order; `single_writer` is printed in the head, where the store does
    not enforce create-only writes. Returns the head, as `load_head` gives it.

    Raises:
        ConflictError: a manifest with other content is there.
    """
    parts = []
    for index in range(0, len(receipts), PART_UNITS):
        data = to_parquet(receipts[index : index + PART_UNITS])
        digest = sha256(data)
        key = f"_job/manifest/part-{index // PART_UNITS:05d}-{digest[:12]}.parquet"
        store.create(key, data)  # named by its content: taken means it is there
        parts.append({"key": key, "sha256": digest})
    totals = total(receipts)
    head = {
        "format": FORMAT,
        "plan_id": plan_id,
        "units": totals.units,
        "rows_in": totals.rows_in,
        "rows_ok": totals.rows_ok,
        "dead_by_code": totals.dead_by_code,
        "tokens": totals.tokens,
        "truncated": totals.truncated,
        "chars": totals.chars,
        "chars_lost": totals.chars_lost,
        "content_digest": combine_digests(receipt.content_digest for receipt in receipts),
        "single_writer": single_writer,
        "parts": parts,
    }
    data = canonical_json(head)
    failpoints.hit("manifest.before_put")
    created = store.create(HEAD, data)
    failpoints.hit("manifest.after_put")
    if not created and store.read(HEAD) != data:
        raise ConflictError(f"{store.uri}/{HEAD} holds another manifest than the one just audited")
    return head


def load_head(store: Store) -> dict[str, Any] | None:
    """Read the head; None where the output is not complete.

    Raises:
        DamagedOutputError: it is not a manifest of this format.
    """
    data = store.read(HEAD)
    if data is None:
        return None
    try:
        head: dict[str, Any] = json.loads(data)
        version = head["format"]
    except (ValueError, KeyError, TypeError):
        raise DamagedOutputError(store.uri, [f"{HEAD} is not a manifest"]) from None
    if version != FORMAT:
        raise DamagedOutputError(store.uri, [f"{HEAD} has format {version}; this embatch reads {FORMAT}"])
    if missing := sorted(name for name, kind in _HEAD.items() if name not in head or not isinstance(head[name], kind)):
        raise DamagedOutputError(store.uri, [f"{HEAD} does not say {', '.join(missing)}"])
    return head


def load_entries(store: Store, head: dict[str, Any]) -> list[Receipt]:
    """Read all entries, in unit order.

    Raises:
        DamagedOutputError: a part is missing or altered, or the head does not name its parts.
    """
    entries: list[Receipt] = []
    try:
        for part in head["parts"]:
            data = store.read(part["key"])
            if data is None or sha256(data) != part["sha256"]:
                raise DamagedOutputError(store.uri, [f"{part['key']} is {'missing' if data is None else 'altered'}"])
            entries += from_parquet(data)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedOutputError(store.uri, [f"{HEAD} names its parts wrongly: {error!r}"]) from error
    return entries


def require_of(store: Store, plan_id: str, units: Sequence[Unit], head: dict[str, Any]) -> list[Receipt]:
    """Read all entries of a manifest that must be that of a plan.

    Raises:
        DamagedOutputError: it is of another plan or lists other units, or as `load_entries` does.
    """
    entries = load_entries(store, head)
    if head["plan_id"] != plan_id:
        raise DamagedOutputError(store.uri, [f"{HEAD} is of plan {head['plan_id']}, the stored plan is {plan_id}"])
    if [entry.unit for entry in entries] != [unit.number for unit in units]:
        raise DamagedOutputError(store.uri, [f"{HEAD} does not list the units of the plan, each once, in order"])
    return entries
