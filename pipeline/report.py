"""What a run did, in numbers, and how its vectors were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.checkpoint import manifest
from pipeline.encoders import registry
from pipeline.fingerprint import canonical_json, sha256
from pipeline.plan import Plan
from pipeline.records import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did. `totals` are of the whole output, `this_run` of what this run encoded itself."""

    name: str
    output: str
    run: int | None
    plan_id: str
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
    warnings: list[str] = field(default_factory=list)


def output_totals(receipts: Sequence[Receipt], plan: Plan | None) -> dict[str, Any]:
    """Sum up the whole output, beside what was planned."""
    planned = {"units_planned": len(plan.units), "rows_planned": plan.rows} if plan else {}
    totals = manifest.total(receipts)
    return {**planned, **asdict(totals), "rows_dead": totals.rows_dead, "tokens_lost_estimate": totals.tokens_lost}


def run_totals(encoded: Sequence[Receipt], seconds: float, encoding_seconds: float) -> dict[str, Any]:
    """Sum up what one run encoded itself; stage seconds add up over replicas."""
    totals = manifest.total(encoded)
    stages = sorted({name for receipt in encoded for name in receipt.seconds})
    return {
        "units": totals.units,
        "rows": totals.rows_in,
        "tokens": totals.tokens,
        "seconds": round(seconds, 2),
        "encoding_seconds": round(encoding_seconds, 2),
        "rows_per_s": round(totals.rows_in / encoding_seconds, 1) if encoding_seconds else 0.0,
        "tokens_per_s": round(totals.tokens / encoding_seconds, 1) if encoding_seconds else 0.0,
        "stage_seconds": {
            stage: round(sum(receipt.seconds.get(stage, 0.0) for receipt in encoded), 2) for stage in stages
        },
    }


def describe(plan: Plan) -> dict[str, str]:
    """Return how vectors were made, as flat text for shard footers."""
    spec = registry.spec_of(plan.resolved["encoder"])
    return {
        "model": spec.model,
        "revision": spec.revision or "",
        "dimension": str(spec.dimension),
        "dtype": spec.dtype,
        "pooling": spec.pooling,
        "normalized": str(spec.normalized).lower(),
        "prompt": spec.prompt,
        "max_seq_length": str(spec.max_seq_length),
        "trial": str(plan.trial).lower(),
        "fingerprint": sha256(canonical_json({"requested": plan.requested, "resolved": plan.resolved})),
    }
