"""Checks of what a job names: the device, its model, input and output, and the clock of the output's store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pipeline import plan as plans
from pipeline.checkpoint import claims
from pipeline.config import ClusterConfig, JobConfig, RemoteConfig
from pipeline.corpus import CorpusFiles
from pipeline.doctor.finding import Finding, doubt, failure, well
from pipeline.encoders.measuring.trial import ModelTrial
from pipeline.encoders.precision import Device
from pipeline.exceptions import PipelineError, StorageError
from pipeline.sampling import check_first
from pipeline.storage import Store, open_store
from pipeline.wording import counted, size

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
SKEW_SECONDS = 60.0
REFUSED_SKEW_SECONDS = 900.0
"""S3 takes no signature that is a quarter of an hour old."""


def device(found: Device, cluster: ClusterConfig) -> Finding:
    """Say what will encode."""
    bf16 = "multiplies bfloat16 natively" if found.bf16 else "does not multiply bfloat16 natively"
    return well("device", f"{found.kind} ({cluster.device} was asked for), {bf16}")


def model(trial: ModelTrial) -> Finding:
    """Say what encoded a text."""
    what = f"{trial.model} at {trial.revision}" if trial.revision else trial.model
    how = f"{trial.dimension} dimensions, {trial.dtype} on {trial.device}, backend {trial.backend}"
    return well("model", f"{what}: one text encoded in {trial.seconds:,.1f} s with loading; {how}")


def api_key(remote: RemoteConfig) -> Finding:
    """Say how the key of a hosted model travels."""
    parts = urlsplit(remote.base_url)
    if not (remote.api_key_env or remote.api_key_file):
        return well("api key", "none is sent")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return doubt(
            "api key", f"it is sent to {remote.base_url!r} unencrypted", "use https where others share the way"
        )
    return well("api key", f"sent to {remote.base_url!r}")


def source(config: JobConfig) -> Finding:
    """List the input, and look for the job's columns in its first files."""
    try:
        listing = CorpusFiles(config.input.uri).discover(config.input.format)
        looked_at = check_first(config, listing.sources)
    except PipelineError as error:
        return failure("input", error, "check the keys below input, and that this machine may list and read it")
    whole = size(sum(file.size for file in listing.sources))
    message = f"{counted(len(listing.sources), 'file')}, {whole} at {config.input.uri!r}"
    message += "; the columns that the job names are there"
    message += f" in the first {looked_at}" if looked_at < len(listing.sources) else ""
    if listing.left_out:
        message += f"; {listing.left_out}"
    return well("input", message)


def output(uri: str) -> Iterator[Finding]:
    """Create one small object, twice, and ask the store for its time; `_job/probe` stays, as of any run."""
    remedy = "check output.uri, and that this machine may read, list and write there"
    try:
        store = open_store(uri)
        if plans.load(store) is None:
            plans.refuse_foreign(store)
        else:
            store.list("_job/runs")  # a run has to list, too
        claims.require_create_only(store)
    except PipelineError as error:
        yield failure("output", error, remedy)
        return
    yield well("output", f"{store.uri!r} creates an object once only (wrote {claims.PROBE})")
    yield clock(store, datetime.now(UTC))


def clock(store: Store, now: datetime) -> Finding:
    """Compare this machine's time with the store's."""
    try:
        theirs = store.clock()
    except PipelineError as error:
        return failure("clock", error, "check that this machine may list the output")
    if theirs is None:
        return well("clock", "the output is on a disk: no other clock is involved")
    skew = (now - theirs).total_seconds()
    message = f"this machine is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} the store"
    remedy = "synchronise this machine's clock (NTP)"
    if abs(skew) >= REFUSED_SKEW_SECONDS:
        return failure("clock", StorageError(store.uri, f"{message}; S3 refuses requests so far off"), remedy)
    return doubt("clock", message, remedy) if abs(skew) > SKEW_SECONDS else well("clock", message)
