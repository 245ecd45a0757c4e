"""`embatch plan`: what a run would do, without doing it."""

from __future__ import annotations

from typing import Any

from jobs import arguments, console
from pipeline.encoders.remote.batches import TYPICAL_BYTES


@arguments.of_a_job
def plan(job: arguments.JobArguments, *, as_json: arguments.Json = False) -> None:
    """Show files, rows, units and bytes, and what is already committed. Writes nothing.

    embatch plan job.yaml

    embatch plan job.yaml --json | jq .units
    """
    console.own_stdout()
    config = job.load()
    from pipeline.dry_run import preview  # reads the model's and the corpus' files
    from pipeline.planning import describe_added

    found = preview(config)
    values = found.to_values()
    lines = [
        ("input", f"{config.input.uri}: {_files(values)}"),
        ("rows", f"{values['rows']:,}" + (" (trial: input.limit is set)" if values["trial"] else "")),
        ("units", f"{values['units']:,} of at most {values['unit_rows']:,} rows"),
        ("committed", f"{console.counted(values['units_committed'], 'unit')}; {values['units_pending']:,} to do"),
        ("output", f"{config.output.uri}: about {console.size(values['vector_bytes'])} of vectors"),
        ("encoder", f"{values['model']}, {values['dimension']} dimensions, {values['dtype']} on {values['device']}"),
        *([("forward", f"padded: {values['backend_reason']}")] if values["backend_reason"] else []),
        *(
            [("code", f"the model's own runs in the replicas: {', '.join(code)}")]
            if (code := values["remote_code"])
            else []
        ),
        ("text", f"{_reads(values)}; {_before(values)}"),
        *_sample_lines(values),
        ("columns", ", ".join(values["columns"])),
        ("plan id", values["plan_id"]),
    ]
    if values["ignored"]:
        lines.append(("left out", f"{len(values['ignored']):,}, such as {values['ignored'][0]!r}"))
    if found.added:
        console.warn(describe_added(found.added))
    console.result(values, lines, as_json=as_json, title=f"{config.name}: plan")


def _files(values: dict[str, Any]) -> str:
    """Say what is planned, and of a series how much of the input is not."""
    planned = f"{console.counted(values['files'], 'file')}, {console.size(values['file_bytes'])}"
    elsewhere = console.counted(values["elsewhere"], "more file")
    return planned + (f"; {elsewhere} for other outputs of the series" if values["elsewhere"] else "")


def _reads(values: dict[str, Any]) -> str:
    """Say how much of a text the encoder reads; hashing has no limit."""
    return f"at most {values['limit']}" if values["backend"] != "hashing" else "of any length"


def _before(values: dict[str, Any]) -> str:
    """Say what stands before each text."""
    return f"brackets of a {values['brackets']}" if values["brackets"] else f"prompt {values['prompt']!r}"


def _sample_lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    sample, tokenizing, asking = values["sample"], values["tokenizing"], values["asking"]
    if sample is None:
        return []
    mean, cut = sample["tokens"] / sample["rows"], sample["truncated"] / sample["rows"]
    long = f", {cut:.1%} of them are too long" if asking is None or cut else ""  # else only the API knows
    first = f"the first {sample['rows']:,} rows have {mean:,.0f} each{long}"
    lines = [("tokens", f"about {console.rounded(values['tokens_estimate'])}: {first}")]
    if asking is not None:
        cost = "" if asking["cost"] is None else f", cost about {console.amount(asking['cost'])}"
        work = f"about {console.rounded(asking['requests'])} for {console.rounded(asking['tokens'])} tokens{cost}"
        lines.append(("requests", f"{work}, estimated at {TYPICAL_BYTES} bytes a token; to {asking['url']}"))
    if tokenizing is not None:
        core, encoder, work, flops = (
            console.rounded(tokenizing[key])
            for key in ("tokens_per_core_s", "replica_tokens_per_s", "flops_per_token", "assumed_flops_per_s")
        )
        estimate = f"encoder about {encoder} tokens/s, estimated from {work}FLOPs a token at {flops}FLOP/s"
        cores = f"about {console.rounded(tokenizing['cores_per_replica'])} cores a replica"
        lines.append(("tokenizing", f"{cores} (measured {core} tokens/s a core; {estimate})"))
    return lines
