"""What an output holds now and who writes it, read from the store alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pipeline import plan as plans
from pipeline.checkpoint import claims, commits, manifest
from pipeline.exceptions import DamagedOutputError
from pipeline.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStatus:
    """Committed of planned. Dead letters and rates are exact once complete, else what the last run reported.

    `rows_in_flight` are encoded and not committed yet, `left_seconds` an estimate, `sample_units_done` of
    `sample_units` are encoded for a calibration that is being made; all of a run that is alive.
    """

    output: str
    plan_id: str
    model: str
    trial: bool
    complete: bool
    units_committed: int
    units_planned: int
    rows_done: int
    rows_planned: int
    rows_in_flight: int
    rows_dead: int
    rows_per_s: float
    tokens_per_s: float
    left_seconds: float | None
    sample_units_done: int
    sample_units: int
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


def read_series(uri: str) -> dict[str, OutputStatus | None]:
    """Look at all outputs of a series, by their names in order, None for one without a plan; empty for anything else.

    Raises:
        DamagedOutputError: the list of outputs is damaged.
    """
    store = open_store(uri)
    found = {name: f"{store.uri}/{name}" for name in plans.outputs(store)}
    return {name: status(uri) if plans.stored_id(open_store(uri)) else None for name, uri in found.items()}


def status(output_uri: str) -> OutputStatus:
    """Look at an output.

    Raises:
        ConfigError: there is no plan there.
        DamagedOutputError: something below `_job/` is not what was written.
    """
    store = open_store(output_uri)
    plan = plans.require(store)
    present = commits.committed(store, plan.plan_id)
    head = manifest.load_head(store)
    owner = claims.latest(store)
    beat: dict[str, Any] = (claims.heartbeat(store, owner.run) if owner else None) or {}
    report = _report(store, owner.run) if owner else None
    alive = owner is not None and report is None and claims.is_alive(store, owner)
    rows_done = head["rows_in"] if head else sum(unit.rows for unit in plan.units if unit.number in present)
    seen: dict[str, Any] = report["this_run"] if report else beat
    return OutputStatus(
        output=output_uri,
        plan_id=plan.plan_id,
        model=plan.resolved["encoder"]["model"],
        trial=plan.trial,
        complete=head is not None,
        units_committed=len(present),
        units_planned=len(plan.units),
        rows_done=rows_done,
        rows_planned=plan.rows,
        rows_in_flight=max(beat.get("rows_done", 0) - rows_done, 0) if alive else 0,
        rows_dead=_rows_dead(head, report, beat),
        rows_per_s=seen.get("rows_per_s", 0.0),
        tokens_per_s=seen.get("tokens_per_s", 0.0),
        left_seconds=beat.get("left_seconds") if alive else None,
        sample_units_done=beat.get("sample_units_done", 0) if alive else 0,
        sample_units=beat.get("sample_units", 0) if alive else 0,
        size_bytes=sum(stored.size for stored in present.values()),
        owner=None if owner is None else str(owner),
        owner_alive=alive,
        last_error=report["error"] if report else None,
    )


def _report(store: Store, run: int) -> dict[str, Any] | None:
    """Return what is shown of a run's closing report; None where it did not close."""
    report = claims.report(store, run)
    if report is None:
        return None
    try:
        return {
            "this_run": {name: float(report["this_run"][name]) for name in ("rows_per_s", "tokens_per_s")},
            "totals": {"rows_dead": int(report["totals"]["rows_dead"])},
            "error": report["error"],
        }
    except (KeyError, TypeError, ValueError) as error:
        what = f"{claims.FOLDER}/{run:06d}.report.json is not what a run wrote of itself ({error!r})"
        raise DamagedOutputError(store.uri, [what]) from error


def _rows_dead(head: dict[str, Any] | None, report: dict[str, Any] | None, beat: dict[str, Any]) -> int:
    """Count dead letters by the best that tells: the manifest, the last run's report, a living run's heartbeat."""
    if head is not None:
        return sum(head["dead_by_code"].values())
    return int(report["totals"]["rows_dead"] if report else beat.get("rows_dead", 0))
