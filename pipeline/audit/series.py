"""The audit of a series: each output by itself, and that no file is in two of them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import plan as plans
from pipeline.audit.findings import Findings, VerifyReport
from pipeline.audit.output import verify
from pipeline.exceptions import DamagedOutputError
from pipeline.fingerprint import differences
from pipeline.plan import Plan
from pipeline.storage import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """The outcome of an audit of a series; `findings` are those of its outputs too, each with the output's name."""

    series: str
    outputs: dict[str, VerifyReport]
    findings: tuple[str, ...]


def verify_series(
    uri: str, *, allow_partial: bool = False, check_input: bool = True, input_uri: str | None = None
) -> SeriesReport:
    """Audit all outputs of a series; what is wrong stands in the report's findings and is never raised.

    Args:
        uri: a series; of anything else the report holds no outputs.
        allow_partial: as of `verify`, of each output; one without a plan is left out.
        check_input: as of `verify`.
        input_uri: as of `verify`.

    Raises:
        PipelineError: as `verify` does.
    """
    store, findings = open_store(uri), Findings()
    reports: dict[str, VerifyReport] = {}
    try:
        names = plans.outputs(store)
    except DamagedOutputError as error:
        return SeriesReport(series=store.uri, outputs={}, findings=tuple(error.findings))
    taken: dict[str, str] = {}
    last: tuple[str, Plan] | None = None
    for name in names:
        output = open_store(f"{store.uri}/{name}")
        if plans.stored_id(output) is None:
            findings.extend([] if allow_partial else [f"{name}: has no plan yet"])
            continue
        reports[name] = verify(output.uri, allow_partial=allow_partial, check_input=check_input, input_uri=input_uri)
        findings.extend(f"{name}: {finding}" for finding in reports[name].findings)
        plan = plans.load(output) if reports[name].plan_id else None
        if plan is not None:
            paths = [source.path for source in plan.sources]
            findings.extend(f"{name}: source file {path} is in {taken[path]}, too" for path in paths if path in taken)
            findings.extend(_differences(name, plan, *last) if last else [])
            taken |= dict.fromkeys(paths, name)
            last = name, plan
    return SeriesReport(series=store.uri, outputs=reports, findings=findings.sentences())


def _differences(name: str, plan: Plan, other: str, before: Plan) -> list[str]:
    """Say in what two jobs of a series differ; how large units are and where they were encoded may."""
    found = differences(before.requested, plan.requested)
    found += differences({"encoder": before.resolved["encoder"]}, {"encoder": plan.resolved["encoder"]})
    return [f"{name}: planned from another job than {other}: {line}" for line in found]
