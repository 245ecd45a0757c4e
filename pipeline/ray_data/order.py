"""What every task and actor of a run is told: small, picklable, without credentials or weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipeline.calibration import Calibration
from pipeline.config import JobConfig
from pipeline.encoders import registry
from pipeline.fingerprint import canonical_json, sha256
from pipeline.plan import Plan
from pipeline.schema import encode_schema

CALLS_PER_ACTOR = 2
"""One unit computes while the one before is built and committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """One run's orders. Workers build their own stores, readers and encoders from it.

    `calibration` turns vectors into what the shards hold; None: as they are.
    """

    config: JobConfig
    plan_id: str
    encoder: dict[str, Any]
    schema: str
    description: dict[str, str]
    device: str
    threads: int
    skip_changed: bool
    log: dict[str, str] | None = None
    """What workers' log lines carry as JSON objects; None: they are plain."""
    calibration: Calibration | None = None

    def calibrated(self, calibration: Calibration) -> WorkOrder:
        """Return these orders with a calibration, which the footers describe too."""
        described = {**self.description, **calibration.description()}
        return replace(self, calibration=calibration, description=described)


def make_order(
    config: JobConfig, plan: Plan, *, threads: int, skip_changed: bool, log: dict[str, str] | None
) -> WorkOrder:
    """Make the orders for a plan; the calibration comes later, as it is made by them."""
    return WorkOrder(
        config=config,
        plan_id=plan.plan_id,
        encoder=plan.resolved["encoder"],
        schema=encode_schema(plan.schema),
        description=describe(plan),
        device=plan.resolved["device"],
        threads=threads,
        skip_changed=skip_changed,
        log=log,
    )


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
        **({"brackets": spec.brackets} if spec.brackets else {}),
        "max_seq_length": str(spec.max_seq_length),
        "trial": str(plan.trial).lower(),
        "fingerprint": sha256(canonical_json({"requested": plan.requested, "resolved": plan.resolved})),
    }
