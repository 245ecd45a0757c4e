"""Remove what is provably dead from an output; never a shard, and nothing while a run is alive."""

from __future__ import annotations

from pipeline import plan as plans
from pipeline.checkpoint import claims, commits, receipts
from pipeline.exceptions import OutputOwnedError
from pipeline.plan import Plan
from pipeline.storage import Store, StoredObject, open_store
from pipeline.storage.base import is_key

TEMPORARY = "_job/tmp/"


def clean(output_uri: str, *, dry_run: bool = False) -> list[StoredObject]:
    """Remove leftovers and return them: temporary files, plan parts and dead letters nothing names.

    A dead-letter file is dead when its unit's shard is committed and names another one: the shard is
    create-only, so the file can never be named again. Of units without a shard nothing is removed.

    Raises:
        ConfigError: there is no plan there.
        OutputOwnedError: a run is alive.
    """
    store = open_store(output_uri)
    plan = plans.require(store)
    owner = claims.latest(store)
    if owner is not None and claims.is_alive(store, owner):
        raise OutputOwnedError(output_uri, str(owner))
    dead = [stored for stored in store.list("_job") if stored.key.startswith(TEMPORARY)]
    dead += [stored for stored in store.list(plans.PARTS) if stored.key not in plan.part_keys]
    dead += _unnamed_dead_letters(store, plan)
    dead = [stored for stored in dead if is_key(stored.key)]
    if not dry_run:
        for stored in dead:
            store.delete(stored.key)
    return dead


def _unnamed_dead_letters(store: Store, plan: Plan) -> list[StoredObject]:
    """Find them by the cache of receipts, and ask the shard: it may have been made again since it was cached."""
    found = store.list("_dead")
    if not found:
        return []
    entries = receipts.load(store, plan.plan_id, commits.committed(store, plan.plan_id))
    named = {entry.dead_key for entry in entries.values()}
    shards = {f"_dead/part-{unit:08d}": entry.key for unit, entry in entries.items()}
    unnamed = {stored: shards.get(stored.key.rpartition("-")[0]) for stored in found if stored.key not in named}
    return [stored for stored, key in unnamed.items() if key and _is_not_of(store, plan, key, stored)]


def _is_not_of(store: Store, plan: Plan, shard: str, letters: StoredObject) -> bool:
    receipt = commits.read_receipt(store, shard, plan.plan_id)
    return receipt is not None and receipt.dead_key != letters.key
