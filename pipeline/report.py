"""What a run did, in numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline import token_lengths
from pipeline.calibration import Calibration
from pipeline.checkpoint import manifest
from pipeline.course import Course
from pipeline.exceptions import InterruptedRunError, PipelineError
from pipeline.plan import Plan
from pipeline.records import BLOCKED, STARVED, Receipt, Unit
from pipeline.schema import bytes_a_vector
from pipeline.telemetry import FirstBatch

BUSY = 0.9
"""Share of the time from which on encoding is what a run waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did. `totals` are of the whole output, `this_run` of what this run encoded itself.

    `cost` in both is by the price in the job, None where it names none. The sample of a calibration is in it, but
    not in `tokens`; what a lost worker had in flight is not.
    `parameters` are the job's keys with every default, `versions` those of the driver.
    """

    name: str
    output: str
    run: int | None
    run_id: str
    plan_id: str
    started: str
    ended: str
    complete: bool
    exit_code: int
    error: str | None
    trial: bool
    totals: dict[str, Any]
    this_run: dict[str, Any]
    content_digest: str | None
    encoder: dict[str, Any]
    device: str
    replicas: int
    devices: dict[str, int]
    """What the replicas ran on, by name, with how many there were."""
    hosts: dict[str, int]
    """Where the replicas ran, with how many there were."""
    versions: dict[str, str]
    parameters: dict[str, Any]
    vectors: dict[str, Any] = field(default_factory=dict)
    """How they are stored, and what a calibration tells of them."""
    warnings: list[str] = field(default_factory=list)


def exit_code(error: BaseException | None) -> int:
    """Map how a run ended to its exit code."""
    if error is None:
        return 0
    if isinstance(error, PipelineError):
        return error.exit_code
    return InterruptedRunError.exit_code if isinstance(error, KeyboardInterrupt) else PipelineError.exit_code


def output_totals(receipts: Sequence[Receipt], plan: Plan | None) -> dict[str, Any]:
    """Sum up the whole output, beside what was planned."""
    planned = {"units_planned": len(plan.units), "rows_planned": plan.rows} if plan else {}
    totals = manifest.total(receipts)
    return {**planned, **asdict(totals), "rows_dead": totals.rows_dead, "tokens_lost_estimate": totals.tokens_lost}


def describe_vectors(plan: Plan | None, calibration: Calibration | None, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Say how vectors are stored; recall and sample are None without a calibration.

    `clipped_share` is of all numbers of all vectors committed so far.
    """
    if plan is None:
        return {}
    numbers = sum(receipt.rows_ok for receipt in receipts) * plan.resolved["encoder"]["dimension"]
    sample = None
    if calibration is not None:
        counts = {"rows": calibration.sample_rows, "units": calibration.sample_units}
        sample = {**counts, "tokens": calibration.sample_tokens}
    return {
        "kind": plan.vectors,
        "bytes_a_row": bytes_a_vector(plan.schema),
        "recall_at_10": calibration.recall_at_10 if calibration else None,
        "clipped_share": round(sum(receipt.clipped for receipt in receipts) / max(numbers, 1), 6),
        "sample": sample,
    }


@dataclass(slots=True, kw_only=True)
class Timing:
    """Moments of one run, all on this process's monotonic clock; `encoding_seconds` is with Ray at work."""

    started: float
    first: FirstBatch | None = None
    last: float = 0.0
    encoding_seconds: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds from the command to the present."""
        return time.monotonic() - self.started

    def span(self) -> tuple[str, str]:
        """Return when the command began and the present, as ISO times."""
        now = datetime.now(UTC)
        began = now - timedelta(seconds=self.elapsed)
        return began.isoformat(timespec="seconds"), now.isoformat(timespec="seconds")

    @property
    def startup(self) -> float | None:
        """Seconds from the command to the first text encoded."""
        return None if self.first is None else max(self.first.at - self.started, 0.0)

    @property
    def steady(self) -> float:
        """Seconds from the first text encoded to the last receipt."""
        return 0.0 if self.first is None else max(self.last - self.first.at, 0.0)


def run_totals(
    encoded: Sequence[Receipt], timing: Timing, replicas: int, course: Course, units: Sequence[Unit]
) -> dict[str, Any]:
    """Sum up what one run encoded itself, and how it went; `units` are those of the plan.

    Stage seconds add up over replicas. Steady rates are of what came after the first batch, so without start-up;
    0 where nothing did.
    """
    totals = manifest.total(encoded)
    stages = {name: round(seconds, 2) for name, seconds in sorted(course.stage_seconds.items())}
    first, startup = timing.first, timing.startup
    available = timing.steady * replicas
    busy = min(stages.get("encode", 0.0) / available, 1.0) if available else None
    return {
        "units": totals.units,
        "rows": totals.rows_in,
        "rows_ok": totals.rows_ok,
        "rows_dead": totals.rows_dead,
        "dead_by_code": totals.dead_by_code,
        "tokens": totals.tokens,
        "truncated": totals.truncated,
        "size_bytes": totals.size_bytes,
        "seconds": round(timing.elapsed, 2),
        "startup_seconds": None if startup is None else round(startup, 2),
        "encoding_seconds": round(timing.encoding_seconds, 2),
        "rows_per_s": _rate(totals.rows_in, timing.encoding_seconds),
        "tokens_per_s": _rate(totals.tokens, timing.encoding_seconds),
        "steady_rows_per_s": _rate(totals.rows_in - first.rows, timing.steady) if first else 0.0,
        "steady_tokens_per_s": _rate(totals.tokens - first.tokens, timing.steady) if first else 0.0,
        "stage_seconds": stages,
        "replicas_busy": None if busy is None else round(busy, 3),
        "bottleneck": _bottleneck(stages, timing, busy),
        "batch_fill": None if course.batch_fill is None else round(course.batch_fill, 4),
        "token_lengths": [asdict(found) for found in token_lengths.bins(course.lengths)],
        "throughput": {
            "seconds": [round(sample.seconds, 2) for sample in course.samples],
            "rows": [sample.rows for sample in course.samples],
            "tokens": [sample.tokens for sample in course.samples],
        },
        "slowest_units": course.slowest(units),
    }


def _rate(count: int, seconds: float) -> float:
    return round(max(count, 0) / seconds, 1) if seconds else 0.0


def _bottleneck(stages: Mapping[str, float], timing: Timing, busy: float | None) -> str | None:
    """Name what held a run up: `start-up` where it took longer than all the rest, else a stage.

    Replicas that work all the time are the bottleneck themselves; else it is what they waited for.
    """
    if timing.startup is None or busy is None:
        return None
    if timing.startup > timing.steady:
        return "start-up"
    waits = {"encode": stages.get("encode", 0.0), "read": stages.get(STARVED, 0.0), "commit": stages.get(BLOCKED, 0.0)}
    if busy >= BUSY or waits["read"] + waits["commit"] < (1 - BUSY) * sum(waits.values()):
        return "encode"
    return "read" if waits["read"] >= waits["commit"] else "commit"
