"""What an output holds now and who writes it, read from the store alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pipeline import plan as plans
from pipeline.checkpoint import claims, commits, manifest
from pipeline.storage import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStatus:
    """Committed of planned. Row counts and rate are exact once complete, else what the last run reported."""

    output: str
    plan_id: str
    model: str
    trial: bool
    complete: bool
    units_committed: int
    units_planned: int
    rows_done: int
    rows_planned: int
    rows_dead: int
    rows_per_s: float
    size_bytes: int
    owner: str | None
    owner_alive: bool
    last_error: str | None


def wait_for_plan(output_uri: str, interval_s: float) -> None:
    """Return once there is a plan; at once where no living run is making one."""
    store = open_store(output_uri)
    while plans.load(store) is None:
        owner = claims.latest(store)
        if owner is None or not claims.is_alive(store, owner):
            return
        time.sleep(interval_s)


def status(output_uri: str) -> OutputStatus:
    """Look at an output.

    Raises:
        ConfigError: there is no plan there.
    """
    store = open_store(output_uri)
    plan = plans.require(store)
    present = commits.committed(store, plan.plan_id)
    head = manifest.load_head(store)
    owner = claims.latest(store)
    beat: dict[str, Any] = (claims.heartbeat(store, owner.run) if owner else None) or {}
    report = claims.report(store, owner.run) if owner else None
    return OutputStatus(
        output=output_uri,
        plan_id=plan.plan_id,
        model=plan.resolved["encoder"]["model"],
        trial=plan.trial,
        complete=head is not None,
        units_committed=len(present),
        units_planned=len(plan.units),
        rows_done=head["rows_in"] if head else sum(unit.rows for unit in plan.units if unit.number in present),
        rows_planned=plan.rows,
        rows_dead=sum(head["dead_by_code"].values()) if head else beat.get("rows_dead", 0),
        rows_per_s=report["this_run"]["rows_per_s"] if report else beat.get("rows_per_s", 0.0),
        size_bytes=sum(stored.size for stored in present.values()),
        owner=None if owner is None else str(owner),
        owner_alive=owner is not None and report is None and claims.is_alive(store, owner),
        last_error=report["error"] if report else None,
    )
