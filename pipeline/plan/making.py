"""Make a plan from a job, and compare a stored one with the job and the input as they are now."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fsspec.utils import glob_translate

from pipeline import fingerprint
from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles, Listing
from pipeline.corpus.files import describe_change
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.precision import Device, assumed_flops_per_s
from pipeline.exceptions import ConfigError, ForeignOutputError, ModelChangedError, PlanChangedError
from pipeline.plan.document import Plan, build, shard_key
from pipeline.plan.series import Taken
from pipeline.plan.units import make_units
from pipeline.schema import output_schema
from pipeline.storage import Store, split_uri

UNIT_SECONDS = 8.0
ASSUMED_ROW_TOKENS = 128
MIN_UNIT_ROWS, MAX_UNIT_ROWS = 256, 65_536
REMOTE_UNIT_ROWS = 8192
"""Of a hosted model: 32 requests as they are by default, so that connections have work and little is paid twice."""


def make_plan(config: JobConfig, device: Device, listing: Listing | None = None, taken: Taken | None = None) -> Plan:
    """Inspect, cut and resolve; reads all but Parquet once and writes nothing. The input is listed unless it was.

    Of a series, what its other outputs have `taken` is left out, which may be all.

    Raises:
        ConfigError: a key does not fit the input or the model.
        PlanChangedError: the other outputs of the series were planned from another input, config or model.
        SourceError: the input is missing or unreadable, or a column has a type that does not fit.
        ModelError: the model's files cannot be used.
    """
    listing = listing or CorpusFiles(config.input.uri).discover(config.input.format)
    _refuse_output_inside_input(config)
    spec = registry.resolve(config.encoder, device)
    asked = config.output.unit_rows
    unit_rows = default_unit_rows(spec, device) if asked == "auto" else asked
    requested = requested_identity(config)
    resolved = {
        "encoder": spec.identity(),
        "device": "cpu" if spec.kind == "remote" else device.kind,
        "unit_rows": unit_rows,
        "encoding_version": fingerprint.ENCODING_VERSION,
    }
    taken = taken or Taken()
    taken.refuse_others(config.output.uri, requested, resolved)
    new = taken.new(listing)
    if taken.last is not None and not new.sources:
        return build(requested, resolved, taken.last.schema, [])
    units, keep = make_units(config, unit_rows, new)
    columns = output_schema(keep, spec.dimension, config.output.vectors)
    taken.refuse_columns(config.output.uri, columns)
    return build(requested, resolved, columns, units)


def _refuse_output_inside_input(config: JobConfig) -> None:
    """Shards among the source files would be new sources to the next look at the input."""
    protocol, path = split_uri(config.input.uri)
    output = split_uri(config.output.uri)
    if output[0] != protocol:
        return
    folder = output[1].rstrip("/")
    shard = f"{folder}/{shard_key('0' * 64, 0)}"
    if f"{folder}/".startswith(f"{path.rstrip('/')}/") or re.match(glob_translate(path), shard):
        raise ConfigError("output.uri", f"{config.output.uri!r} lies inside the input; name a place beside it")


def default_unit_rows(spec: EncoderSpec, device: Device) -> int:
    """Return a power of two: some seconds of a replica's work, within bounds."""
    if spec.kind == "remote":
        return REMOTE_UNIT_ROWS
    flops = UNIT_SECONDS * assumed_flops_per_s(device.kind, spec.dtype)
    rows = flops / (spec.flops_per_token * ASSUMED_ROW_TOKENS)
    return int(min(max(2 ** round(rows).bit_length(), MIN_UNIT_ROWS), MAX_UNIT_ROWS))


def requested_identity(config: JobConfig) -> dict[str, Any]:
    """Return what the job asks for, without what never changes the output (name, limits, cluster, target)."""
    values = config.model_dump(mode="json", exclude={"name", "limits", "cluster"})
    values["output"].pop("uri")
    # where the series lies may change as where the output does; that it is one may not
    values["output"]["series"] = config.output.series is not None
    # what a plan from before a key came says nothing of stays unsaid, so that it goes on
    values["input"]["csv"] = config.input.csv.model_dump(mode="json", exclude_defaults=True)
    if not values["input"]["csv"]:
        del values["input"]["csv"]
    if values["output"]["vectors"] == "float32":
        del values["output"]["vectors"]
    if not values["output"]["series"]:
        del values["output"]["series"]
    for key in ("brackets", "trust_remote_code", "remote"):
        if not values["encoder"][key]:
            del values["encoder"][key]
    if config.encoder.remote is not None:
        values["encoder"]["remote"] = config.encoder.remote.identity()
    return values


def check_unchanged(config: JobConfig, plan: Plan, output: str) -> None:
    """Refuse to continue a plan with another configuration.

    Raises:
        PlanChangedError: with one line a key that differs.
    """
    changes = fingerprint.differences(plan.requested, requested_identity(config))
    changes += [] if changes else _model_changes(plan.resolved["encoder"])
    if plan.resolved["encoding_version"] != fingerprint.ENCODING_VERSION:
        changes.append(f"encoding_version: {plan.resolved['encoding_version']} -> {fingerprint.ENCODING_VERSION}")
    if changes:
        raise PlanChangedError(output, changes)


def refuse_foreign(store: Store) -> None:
    """Let nothing be planned where something else is.

    Raises:
        ForeignOutputError: there are files, and not those that a run leaves before its plan stands.
    """
    ours = ("_job/probe", "_job/runs/", "_job/tmp/", "_job/plan/", "_job/report.json", "_job/report.html")
    for stored in store.list(""):
        if not stored.key.startswith(ours):
            raise ForeignOutputError(store.uri, stored.key)


def _model_changes(planned: dict[str, Any]) -> list[str]:
    try:
        registry.restore(planned)
    except ModelChangedError as error:
        return [f"encoder.model: {name} in {error.folder!r} has other bytes" for name in error.files]
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDrift:
    """How the input differs from the plan: paths that were added, and what happened to planned ones.

    In a series what was added is for the outputs after this one, and is not told.
    """

    added: list[str]
    changed: dict[str, str]


def input_drift(plan: Plan, listing: Listing) -> InputDrift:
    """Compare a fresh listing with the files the plan pinned."""
    now = {source.path: (source.size, source.etag) for source in listing.sources}
    planned = {source.path: source for source in plan.sources}
    changes = {path: describe_change(source, now.get(path)) for path, source in planned.items()}
    changed = {path: change for path, change in changes.items() if change is not None}
    added = [] if plan.trial or plan.in_series else sorted(now.keys() - planned.keys())
    return InputDrift(added=added, changed=changed)
