"""Publish one shard, or learn that it is published; list what is.

The create-only write of the shard is the commit. Its outcome is learned by reading back, never from an
error, and nothing is ever deleted.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from pipeline import failpoints, shard
from pipeline.exceptions import ConflictError, DamagedOutputError, PlanChangedError
from pipeline.records import Receipt
from pipeline.storage import Store, StoredObject

logger = logging.getLogger(__name__)

_SHARD_KEY = re.compile(r"data/part-(\d{8})-([0-9a-f]{12})\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The plan's shards by unit, and the keys of whatever else lies among them."""

    shards: dict[int, StoredObject]
    others: list[str]


def commit(store: Store, made: shard.Shard, plan_id: str) -> Receipt:
    """Create the dead letters, then the shard; return the receipt of what lies there now.

    Raises:
        ConflictError: the shard's name holds something of another plan.
    """
    unit, key = made.receipt.unit, made.receipt.key
    if made.dead_data is not None and made.receipt.dead_key is not None:
        store.create(made.receipt.dead_key, made.dead_data)  # named by its content: taken means it is there
    failpoints.hit("commit.before_put", unit)
    created = store.create(key, made.data)
    failpoints.hit("commit.after_put", unit)
    if created:
        return made.receipt
    # ours after a lost reply, or another attempt's
    present = read_receipt(store, key, plan_id)
    if present is None:
        raise ConflictError(f"{store.uri}/{key} was taken and then gone; something else deletes from this output")
    if present.content_digest != made.receipt.content_digest:
        logger.warning("nondeterminism unit=%d committed=%s now=%s", unit, present.sha256, made.receipt.sha256)
    return present


def read_receipt(store: Store, key: str, plan_id: str) -> Receipt | None:
    """Read a committed shard's receipt from its bytes; None where there is no shard.

    Raises:
        ConflictError: the shard belongs to another plan.
        DamagedOutputError: it is none, or that of another unit.
    """
    data = store.read(key)
    if data is None:
        return None
    found = shard.footer(data, key).get("plan_id")
    if found is None:
        raise DamagedOutputError(store.uri, [f"{key} does not say of which plan it is"])
    if found != plan_id:
        raise PlanChangedError(store.uri, [f"{key}: plan {plan_id} -> {found}"])
    receipt = shard.describe(key, data)
    match = _SHARD_KEY.fullmatch(key)
    if match and int(match[1]) != receipt.unit:
        raise DamagedOutputError(store.uri, [f"{key} holds unit {receipt.unit}"])
    return receipt


def look(store: Store, plan_id: str) -> Listed:
    """List what lies where shards do: one listing is the checkpoint."""
    shards, others = {}, []
    for stored in store.list("data"):
        match = _SHARD_KEY.fullmatch(stored.key)
        if match and match[2] == plan_id[:12]:
            shards[int(match[1])] = stored
        else:
            others.append(stored.key)
    return Listed(shards=shards, others=others)


def committed(store: Store, plan_id: str) -> dict[int, StoredObject]:
    """List the plan's shards by unit."""
    return look(store, plan_id).shards
