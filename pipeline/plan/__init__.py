"""The plan: which rows belong to which unit, decided once and written down create-only.

The same input and configuration give a byte-identical plan on any machine with the same model and device.
Resume compares what is requested and takes everything resolved from the stored plan.
"""

from __future__ import annotations

from pipeline.plan.document import PARTS, Plan, load, publish, require, shard_key, stored_id
from pipeline.plan.making import InputDrift, check_unchanged, input_drift, make_plan, refuse_foreign
from pipeline.plan.sample import sample_units
from pipeline.plan.series import Taken, outputs, read_taken

__all__ = [
    "PARTS",
    "InputDrift",
    "Plan",
    "Taken",
    "check_unchanged",
    "input_drift",
    "load",
    "make_plan",
    "outputs",
    "publish",
    "read_taken",
    "refuse_foreign",
    "require",
    "sample_units",
    "shard_key",
    "stored_id",
]
