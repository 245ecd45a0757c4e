"""What keeps an output from being complete, as listings and receipts tell it; no shard is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.checkpoint.commits import Listed
from pipeline.checkpoint.manifest import Totals
from pipeline.exceptions import DamagedOutputError, DeadRateError
from pipeline.records import Receipt, Unit
from pipeline.storage import Store


def require(store: Store, units: Sequence[Unit], receipts: Mapping[int, Receipt], listed: Listed) -> None:
    """Require that every unit is listed as its receipt says and accounts for all its rows, and nothing else is.

    Raises:
        DamagedOutputError: with all that is wrong.
    """
    found = faults(store, units, receipts, listed)
    if found:
        raise DamagedOutputError(store.uri, found)


def refuse_dead_rate(totals: Totals, limit: float) -> None:
    """Let an output with too many dead letters not be complete.

    Raises:
        DeadRateError: more than a share of `limit` of its rows.
    """
    if totals.rows_failed > limit * totals.rows_in:
        raise DeadRateError(totals.rows_failed, totals.rows_in, limit, totals.dead_by_code)


def faults(store: Store, units: Sequence[Unit], receipts: Mapping[int, Receipt], listed: Listed) -> list[str]:
    """Say of each unit with a receipt what is wrong with its shard and dead letters, and what else lies beside them.

    A listing may lag behind: what is not in it is looked for by its own name.
    """
    found = [fault for unit in units for fault in _unit_faults(store, unit, receipts[unit.number], listed)]
    planned = {unit.number for unit in units}
    strangers = [stored.key for number, stored in listed.shards.items() if number not in planned]
    found += [f"{key} is not a shard of this plan; move it elsewhere" for key in [*listed.others, *strangers]]
    return found + _missing_dead_letters(store, [receipts[unit.number] for unit in units])


def _unit_faults(store: Store, unit: Unit, receipt: Receipt, listed: Listed) -> list[str]:
    found = []
    stored = listed.shards.get(unit.number) or store.head(receipt.key)
    if stored is None or stored.size != receipt.size_bytes:
        found.append(f"{receipt.key} is missing or has another size than its receipt")
    if receipt.rows_in != unit.rows or receipt.rows_ok + receipt.rows_dead != unit.rows:
        found.append(f"{receipt.key}: {unit.rows} rows planned, {receipt.rows_ok} ok + {receipt.rows_dead} dead")
    return found


def _missing_dead_letters(store: Store, receipts: Sequence[Receipt]) -> list[str]:
    named = {receipt.dead_key: receipt.key for receipt in receipts if receipt.dead_key is not None}
    there = {stored.key for stored in store.list("_dead")} if named else set()
    return [
        f"{dead_key} is missing, the dead letters of {key}; remove that shard too, and both are made again"
        for dead_key, key in named.items()
        if dead_key not in there and store.head(dead_key) is None
    ]
