"""A dry run: the plan a run would make or continue, and how much of it is done. Writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline import plan as plans
from pipeline.checkpoint import commits
from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles
from pipeline.encoders import precision
from pipeline.ray_data.session import is_local, probe_device, ray_session
from pipeline.storage import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run of a job would do now."""

    plan_id: str
    stored: bool
    trial: bool
    files: int
    file_bytes: int
    ignored: list[str]
    rows: int
    units: int
    unit_rows: int
    units_committed: int
    vector_bytes: int
    model: str
    revision: str | None
    dimension: int
    dtype: str
    device: str
    max_seq_length: int
    prompt: str
    columns: list[str]

    def to_values(self) -> dict[str, Any]:
        """Return all fields, and the units still to do."""
        return {**asdict(self), "units_pending": self.units - self.units_committed}


def preview(config: JobConfig) -> Preview:
    """Load the output's plan, or make the one a run would store.

    Raises:
        PipelineError: whatever would stop a run before its first unit.
    """
    store = open_store(config.output.uri)
    stored = plans.load(store)
    listing = CorpusFiles(config.input.uri).discover(config.input.format)
    if stored is not None:
        plans.check_unchanged(config, stored, store.uri)
    plan = stored or make(config)
    encoder = plan.resolved["encoder"]
    return Preview(
        plan_id=plan.plan_id,
        stored=stored is not None,
        trial=plan.trial,
        files=len(plan.sources),
        file_bytes=sum(source.size for source in plan.sources),
        ignored=listing.ignored,
        rows=plan.rows,
        units=len(plan.units),
        unit_rows=plan.resolved["unit_rows"],
        units_committed=len(commits.committed(store, plan.plan_id)) if stored else 0,
        vector_bytes=4 * encoder["dimension"] * plan.rows,
        model=encoder["model"],
        revision=encoder["revision"],
        dimension=encoder["dimension"],
        dtype=encoder["dtype"],
        device=plan.resolved["device"],
        max_seq_length=encoder["max_seq_length"],
        prompt=encoder["prompt"],
        columns=[f"{field.name}: {field.type}" for field in plan.schema],
    )


def make(config: JobConfig) -> plans.Plan:
    """Make the plan of a job for the device that will encode it; a cluster is asked for its own."""
    if is_local(config.cluster):
        return plans.make_plan(config, precision.detect(config.cluster.device))
    with ray_session(config.cluster) as session:
        return plans.make_plan(config, probe_device(config.cluster, session))
