"""The one calibration of a job: created once, before the first shard, and the same for every run and driver."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import calibration, failpoints
from pipeline.calibration import UNCODED, Calibration
from pipeline.exceptions import ConflictError, DamagedOutputError
from pipeline.records import Receipt
from pipeline.storage import Store

KEY = "_job/calibration.json"


def load(store: Store, plan_id: str, vectors: str) -> Calibration | None:
    """Read the calibration of a plan whose vectors are stored so; None where there is none yet, or none is needed.

    Raises:
        DamagedOutputError: it is not what was written, or of another plan.
    """
    data = None if vectors == UNCODED else store.read(KEY)
    if data is None:
        return None
    try:
        found = calibration.from_json(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedOutputError(store.uri, [f"{KEY} is not a calibration: {error}"]) from error
    if (found.plan_id, found.vectors) != (plan_id, vectors):
        what = f"is of plan {found.plan_id} for {found.vectors}, the output of {plan_id} for {vectors}"
        raise DamagedOutputError(store.uri, [f"{KEY} {what}"])
    return found


def publish(store: Store, made: Calibration) -> Calibration:
    """Create the calibration, and return the one that counts: another driver may have been first.

    Raises:
        ConflictError: it was taken and then gone.
    """
    failpoints.hit("calibration.before_put")
    created = store.create(KEY, made.to_json())
    failpoints.hit("calibration.after_put")
    winner = made if created else load(store, made.plan_id, made.vectors)
    if winner is None:
        raise ConflictError(f"{store.uri}/{KEY} was taken and then gone; something else deletes from this output")
    return winner


def refuse_others(store: Store, counts: Calibration | None, receipts: Iterable[Receipt]) -> None:
    """Refuse shards that were made with another calibration than the one that counts; None: with any.

    Raises:
        DamagedOutputError: naming the first of them.
    """
    digest = None if counts is None else counts.digest
    others = [receipt for receipt in receipts if receipt.calibration != digest]
    if others:
        made = f"{others[0].key} was made with the calibration {others[0].calibration}"
        reason = f"which {KEY} is not" if counts else f"and {KEY} is missing"
        more = f" (so were {len(others) - 1} more shards)" if len(others) > 1 else ""
        raise DamagedOutputError(store.uri, [f"{made}, {reason}; put that file back{more}"])
