"""A dry run: the plan a run would make or continue, and how much of it is done. Writes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from pipeline import plan as plans
from pipeline import planning, schema
from pipeline.calibration import UNCODED
from pipeline.checkpoint import calibrations, commits
from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles
from pipeline.encoders import registry
from pipeline.encoders.remote.batches import TYPICAL_BYTES, most_tokens
from pipeline.sampling import Sample, assumed_tokens_per_s, prepare_first
from pipeline.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizing:
    """How much tokenizing keeps one replica busy: measured on one core here, over an estimate of the encoder.

    `assumed_flops_per_s` is what a replica is taken to reach, `replica_tokens_per_s` follows from it.
    """

    tokens_per_core_s: float
    flops_per_token: int
    assumed_flops_per_s: float
    replica_tokens_per_s: float
    cores_per_replica: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What the API of a hosted model would be asked for all that is pending, estimated by the first rows."""

    url: str
    requests: int
    tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run of a job would do now.

    `added` are files that came after the plan, which a run leaves out; `elsewhere` counts those of the input that other
    outputs of the series have, or the next one will. `sample` is of the first rows, None where there is nothing to do;
    `tokens_estimate` scales it to all rows. `tokenizing` is None for encoders without tokens, `asking` for all but
    hosted models. `remote_code` has the files of the model's own code that will run.
    """

    plan_id: str
    stored: bool
    trial: bool
    files: int
    file_bytes: int
    ignored: list[str]
    added: list[str]
    elsewhere: int
    rows: int
    units: int
    unit_rows: int
    units_committed: int
    vector_bytes: int
    model: str
    revision: str | None
    dimension: int
    dtype: str
    backend: str
    backend_reason: str | None
    device: str
    max_seq_length: int
    limit: str
    prompt: str
    brackets: str | None
    remote_code: list[str]
    columns: list[str]
    sample: Sample | None
    tokens_estimate: int | None
    tokenizing: Tokenizing | None
    asking: Asking | None

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
    if stored is None:
        plans.refuse_foreign(store)
    listing = CorpusFiles(config.input.uri).discover(config.input.format)
    added = planning.refuse_changes(config, stored, store.uri, listing).added if stored else []
    plan = stored or planning.make(config, listing)
    encoder = plan.resolved["encoder"]
    done = commits.committed(store, plan.plan_id) if stored else {}
    pending = [unit for unit in plan.units if unit.number not in done]
    sample = _sample(config, plan) if pending else None
    return Preview(
        plan_id=plan.plan_id,
        stored=stored is not None,
        trial=plan.trial,
        files=len(plan.sources),
        file_bytes=sum(source.size for source in plan.sources),
        ignored=listing.ignored,
        added=added,
        elsewhere=len(listing.sources) - len(plan.sources) if plan.in_series else 0,
        rows=plan.rows,
        units=len(plan.units),
        unit_rows=plan.resolved["unit_rows"],
        units_committed=len(done),
        vector_bytes=schema.bytes_a_vector(plan.schema) * plan.rows,
        model=encoder["model"],
        revision=encoder["revision"],
        dimension=encoder["dimension"],
        dtype=encoder["dtype"],
        backend=encoder["backend"],
        backend_reason=encoder.get("backend_reason"),
        device=plan.resolved["device"],
        max_seq_length=encoder["max_seq_length"],
        limit=registry.spec_of(encoder).limit,
        prompt=encoder["prompt"],
        brackets=encoder.get("brackets"),
        remote_code=[name for name in encoder["files"] if name.endswith(".py")] if encoder.get("remote_code") else [],
        columns=[f"{field.name}: {field.type}" for field in plan.schema],
        sample=sample,
        tokens_estimate=round(sample.tokens / sample.rows * plan.rows) if sample else None,
        tokenizing=_tokenizing(plan, sample) if sample else None,
        asking=_asking(config, [unit.rows for unit in pending] + _calibrating(store, plan), sample) if sample else None,
    )


def _sample(config: JobConfig, plan: plans.Plan) -> Sample | None:
    spec = registry.restore(plan.resolved["encoder"], weights=False)
    found = prepare_first(config, spec, plan.sources)
    return found[1] if found else None


def _tokenizing(plan: plans.Plan, sample: Sample) -> Tokenizing | None:
    spec = registry.spec_of(plan.resolved["encoder"])
    if spec.kind in ("hashing", "remote"):
        return None
    encoder = assumed_tokens_per_s(spec, plan.resolved["device"])
    return Tokenizing(
        tokens_per_core_s=round(sample.tokens_per_core_s),
        flops_per_token=spec.flops_per_token,
        assumed_flops_per_s=encoder * spec.flops_per_token,
        replica_tokens_per_s=round(encoder),
        cores_per_replica=round(encoder / sample.tokens_per_core_s, 3),
    )


def _calibrating(store: Store, plan: plans.Plan) -> list[int]:
    """Return how many rows of each unit are encoded for a calibration that is still to be made."""
    if plan.vectors == UNCODED or calibrations.load(store, plan.plan_id, plan.vectors) is not None:
        return []
    return [rows for _, rows in plans.sample_units(plan.units)]


def _asking(config: JobConfig, rows: list[int], sample: Sample) -> Asking | None:
    remote = config.encoder.remote
    if remote is None:
        return None
    mean = sample.tokens / sample.rows
    fitting = remote.max_batch_tokens / most_tokens(round(mean * TYPICAL_BYTES))
    a_request = min(remote.max_batch_items, max(fitting, 1))
    tokens = round(mean * sum(rows))
    return Asking(
        url=f"{remote.base_url}/embeddings",
        requests=sum(ceil(together / a_request) for together in rows),
        tokens=tokens,
        cost=config.encoder.cost(tokens),
    )
