"""One job: all groups together, read from a file or from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.config import mistakes
from pipeline.config.cluster import ClusterConfig
from pipeline.config.corpus import InputConfig, TextConfig
from pipeline.config.encoder import EncoderConfig
from pipeline.config.job_file import read_values
from pipeline.config.limits import LimitsConfig
from pipeline.config.output import OutputConfig
from pipeline.config.section import Section
from pipeline.exceptions import ConfigError

_NAME_IN_A_FILE = {"pattern": r"^([A-Za-z0-9]|\{ds\})([A-Za-z0-9._-]|\{ds\}){0,62}$"}
"""For editors, which see the name before the day is put into it."""
_OF_ANY_MODEL = ("model", "prompt", "backend", "remote")
"""Keys of the encoder that a hosted model can heed."""


class JobConfig(Section):
    """One embatch job."""

    version: Literal[1] = 1
    """Of the job file's format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", json_schema_extra=_NAME_IN_A_FILE)] = (
        "embatch"
    )
    """For people; not part of the output's identity; `{ds}`: the day."""
    input: InputConfig
    encoder: EncoderConfig
    output: OutputConfig
    text: TextConfig = TextConfig()
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()


def load_job(path: Path | None, overrides: Sequence[str] = (), day: date | None = None) -> JobConfig:
    """Read a job file, apply `section.key=value` overrides, and put the day for `{ds}`.

    Raises:
        ConfigError: the file cannot be read or parsed, a key is unknown or has a wrong value, or one of `{ds}` and
            the day is there without the other.
    """
    return parse_job(read_values(path, overrides, day))


def parse_job(values: Mapping[str, Any]) -> JobConfig:
    """Validate plain values into a job.

    Raises:
        ConfigError: naming the first wrong key by its path, with the nearest valid key.
    """
    try:
        job = JobConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*mistakes.first(JobConfig, error)) from None
    _check_remote(job)
    _check_series(job)
    return job


def _check_series(job: JobConfig) -> None:
    """Refuse a place outside the series; a trial in it, whose files would count as done; and codes of many ranges.

    Raises:
        ConfigError: naming the key.
    """
    if job.output.series is None:
        return
    place = job.output.place
    if place is None or place.startswith("_") or {"", ".", ".."} & set(place.split("/")):
        reason = f"{job.output.uri!r} must lie below output.series, {job.output.series!r}, in a folder of its own"
        raise ConfigError("output.uri", reason)
    if job.input.limit is not None:
        raise ConfigError("input.limit", "an output of a series takes whole files; leave out this or output.series")
    if job.output.vectors == "int8":
        raise ConfigError("output.vectors", "int8 codes have ranges of one output; in a series use float16 or binary")


def _check_remote(job: JobConfig) -> None:
    """Refuse what a hosted model cannot heed, and what means nothing without one.

    Raises:
        ConfigError: naming the key.
    """
    encoder, remote = job.encoder, job.encoder.remote
    if job.limits.max_cost is not None and (remote is None or not remote.price_per_million_tokens):
        raise ConfigError("limits.max_cost", "needs encoder.remote.price_per_million_tokens, above 0")
    if (encoder.backend == "remote") != (remote is not None):
        missing = "encoder.backend" if remote else "encoder.remote"
        raise ConfigError(missing, "encoder.backend: remote and encoder.remote.base_url belong together; give both")
    if remote is None:
        return
    if remote.api_key_env and remote.api_key_file:
        raise ConfigError("encoder.remote.api_key_file", "give this or api_key_env, not both")
    for key, field in EncoderConfig.model_fields.items():
        if key not in _OF_ANY_MODEL and getattr(encoder, key) != field.default:
            reason = "means nothing to a hosted model (encoder.backend: remote); leave it out"
            raise ConfigError(f"encoder.{key}", reason)
    if job.cluster.device == "cuda":
        raise ConfigError("cluster.device", "a hosted model (encoder.backend: remote) needs no GPU here; set cpu")
