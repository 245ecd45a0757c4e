"""What every task and actor of a run is told: small, picklable, without credentials or weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pipeline.calibration import Calibration
from pipeline.config import JobConfig

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
