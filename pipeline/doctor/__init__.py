"""Whether a job can run here, before it is run: each check gives findings with a level and a remedy.

Nothing is written but the probe object that every run leaves in its output.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import ClusterConfig, JobConfig
from pipeline.doctor import job, machine
from pipeline.doctor.finding import Finding, failure
from pipeline.encoders.measuring.trial import try_model
from pipeline.encoders.precision import detect
from pipeline.exceptions import PipelineError
from pipeline.ray_data.probing import workplace
from pipeline.ray_data.session import LOCAL_OBJECT_STORE_BYTES, is_local

__all__ = ["Finding", "diagnose"]

SCHEDULING_SECONDS = 120.0
"""How long a cluster may take to find room for a check."""
REMEDY = "check encoder.model and the keys beside it; docs/encoders.md tells more"
REMOTE_REMEDY = (
    "check encoder.remote and its key where units are encoded; a text can be sent by hand: "
    "POST {base_url}/embeddings, see docs/encoders.md"
)


def diagnose(config: JobConfig | None, output_uri: str | None = None) -> Iterator[Finding]:
    """Yield what each check finds, in order: the machine, then what the job names, the dearest check last.

    Args:
        config: the job; without one only the machine and `output_uri` are looked at.
        output_uri: an output to look at where there is no job.
    """
    yield from machine.versions()
    yield from machine.disks()
    yield machine.open_files()
    if config is None or is_local(config.cluster):
        yield machine.shared_memory(LOCAL_OBJECT_STORE_BYTES)
    if config is not None:
        yield job.source(config)
    target = output_uri if config is None else config.output.uri
    if target is not None:
        yield from job.output(target)
    if config is None:
        yield job.device(detect("auto"), ClusterConfig())
    else:
        yield from _encoding(config)


def _encoding(config: JobConfig) -> Iterator[Finding]:
    """Look at device and model where units will be encoded: here, or on a worker of the cluster."""
    try:
        with workplace(config.cluster, SCHEDULING_SECONDS) as call:
            found = call(detect, config.cluster.device)
            yield job.device(found, config.cluster)
            if config.encoder.remote is not None:
                yield job.api_key(config.encoder.remote)
            try:
                yield job.model(call(try_model, config.encoder, found))
            except PipelineError as error:
                yield failure("model", error, REMEDY if config.encoder.remote is None else REMOTE_REMEDY)
    except PipelineError as error:
        yield failure("device", error, "check cluster.address and cluster.device")
