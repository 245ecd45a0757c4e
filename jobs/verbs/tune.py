"""`embatch tune`: measure a model on this machine and print settings that are faster than the defaults."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs import arguments, console
from pipeline.config import JobConfig
from pipeline.exceptions import EmptyInputError

if TYPE_CHECKING:
    from pipeline.encoders.base import PreparedTexts
    from pipeline.encoders.measuring.tuning import Comparison, Measurement, Tuning
    from pipeline.encoders.precision import Device
    from pipeline.sampling import Sample

SAMPLE_ROWS = 4096
NO_INPUT = "unused"
"""A job needs an input; a tuning can do without."""
IDENTITY = (
    "Tokens a batch and precision change the low bits of vectors: they are part of an output's identity, so that a "
    "run refuses to continue an existing output with other ones. Replicas are not."
)


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL|JOB.yaml", help="A model as in encoder.model, or a job file.")],
    set_: arguments.Set = None,
    input_: Annotated[
        str | None, typer.Option("--input", metavar="URI", help="Measure on texts of this corpus, as a job reads it.")
    ] = None,
    ds: arguments.Day = None,
    *,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="What to measure on; auto takes the job's.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="Encoding time a candidate and round, roughly.")] = 2.0,
    as_json: arguments.Json = False,
) -> None:
    """Measure replicas, tokens a batch and precision on this machine, and print what is faster. Writes no file.

    Texts are those of --input or of the job file's input, else a fixed mix of lengths up to what the model reads.

        embatch tune thenlper/gte-small

        embatch tune job.yaml --seconds 5

        embatch tune thenlper/gte-small --input corpus/ --set input.text=body --set encoder.dtype=float32
    """
    console.own_stdout()
    config = _job(model, set_, input_, device, ds)
    from pipeline.encoders import precision  # torch is loaded by the replicas only
    from pipeline.encoders.measuring import tuning

    detected = precision.detect(config.cluster.device)
    prepared, sample = (None, None) if config.input.uri == NO_INPUT else _first_rows(config, detected)
    limits = tuning.Limits(
        cpus=tuning.available_cpus(),
        replicas=config.cluster.replicas if isinstance(config.cluster.replicas, int) else None,
        seconds=seconds,
    )
    found = tuning.tune(config.encoder, detected, limits, prepared, console.note)
    values = {**found.to_values(), "sample": None if sample is None else asdict(sample)}
    title = f"{found.model} on {found.device}, {limits.cpus} cores: {_verdict(found)}"
    console.result(values, _lines(found, config.input.uri, sample), as_json=as_json, title=title)
    if not as_json:
        show(found)


def _job(target: str, overrides: list[str] | None, input_: str | None, device: str, ds: str | None) -> JobConfig:
    """Build a job around the model, or read it; a tuning needs neither input nor output."""
    set_ = [*(overrides or ()), *([] if device == "auto" else [f"cluster.device={device}"])]
    if target.endswith((".yaml", ".yml")):
        given = arguments.JobArguments(file=Path(target), set_=set_, input_=input_, ds=ds)
    else:
        given = arguments.JobArguments(model=target, set_=set_, input_=input_ or NO_INPUT, output=NO_INPUT, ds=ds)
    return given.load()


def _first_rows(config: JobConfig, device: Device) -> tuple[PreparedTexts, Sample]:
    from pipeline.corpus import CorpusFiles
    from pipeline.encoders import registry
    from pipeline.sampling import prepare_first

    sources = CorpusFiles(config.input.uri).discover(config.input.format).sources
    found = prepare_first(config, registry.resolve(config.encoder, device), sources, SAMPLE_ROWS)
    if found is None:
        raise EmptyInputError(config.input.uri)
    return found


def _verdict(found: Tuning) -> str:
    if not found.settings:
        return "keep what is set, nothing was surely faster"
    gain = math.prod(it.gain for it in found.comparisons if it.key in found.settings)
    return f"{gain:.2f} times as fast with other settings"


def _lines(found: Tuning, uri: str, sample: Sample | None) -> list[tuple[str, str]]:
    work = f"{found.texts:,} of them, {found.tokens:,} tokens, are one measurement"
    if sample is None:
        return [("texts", f"a fixed mix of lengths, as no --input is given; {work}")]
    first = f"the first {sample.rows:,} rows of {uri}, {sample.tokens / sample.rows:,.0f} tokens each"
    return [("texts", f"{first}; {work}"), ("tokenizing", _tokenizing(found, sample))]


def _tokenizing(found: Tuning, sample: Sample) -> str:
    replica = found.best.median / found.best.setting.replicas
    core = f"{console.rounded(sample.tokens_per_core_s)} tokens/s a core"
    encoder = f"encoder {console.rounded(replica)} tokens/s, both measured"
    return f"about {replica / sample.tokens_per_core_s:.2g} cores a replica ({core}; {encoder})"


def show(found: Tuning) -> None:
    """Print a table a key, then what to write into the job."""
    for comparison in found.comparisons:
        console.write("")
        ordered = sorted(comparison.measurements, key=lambda found: found.setting.max_batch_tokens)
        rows = [_row(comparison, measured) for measured in ordered]
        console.table((comparison.key, "tokens/s", "lowest", "highest", "speed", ""), rows)
    console.write("")
    if found.settings:
        console.write("In the job file, or each on the command line as --set section.key=value:\n")
        console.write(settings_yaml(found) + "\n")
    console.write(IDENTITY)


def _row(comparison: Comparison, measured: Measurement) -> list[str]:
    values = {
        "cluster.replicas": f"{measured.setting.replicas} (threads each: {measured.setting.threads})",
        "encoder.max_batch_tokens": f"{measured.setting.max_batch_tokens}",
        "encoder.dtype": measured.setting.dtype,
    }
    if not min(measured.tokens_per_s):
        return [values[comparison.key], "out of memory", "", "", "", ""]
    rates = [f"{rate:,.0f}" for rate in (measured.median, min(measured.tokens_per_s), max(measured.tokens_per_s))]
    speed = f"{measured.ratio(comparison.baseline):.2f}"
    marks = ["baseline"] * (measured == comparison.baseline) + ["best"] * (measured == comparison.best)
    return [values[comparison.key], *rates, speed, ", ".join(marks)]


def settings_yaml(found: Tuning) -> str:
    """Return the better settings as sections of a job file, each with its gain."""
    lines = []
    for comparison in found.comparisons:
        if comparison.key not in found.settings:
            continue
        section, name = comparison.key.split(".")
        old, new = (getattr(measured.setting, name) for measured in (comparison.baseline, comparison.best))
        lines += [f"{section}:", f"  {name}: {new}  # {comparison.gain:.2f} times as fast as {old}"]
    return "\n".join(lines)
