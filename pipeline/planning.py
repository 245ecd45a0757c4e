"""What a run and its preview settle before all else: the plan of a job, or whether the stored one still holds."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import plan as plans
from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles, Listing
from pipeline.exceptions import SourceChangedError
from pipeline.ray_data.probing import encoding_device
from pipeline.wording import counted


def make(
    config: JobConfig,
    listing: Listing | None = None,
    *,
    joining: bool = False,
    skip_changed: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> plans.Plan:
    """Make the plan of a job for the device that encodes it; a cluster is asked for its own.

    Args:
        config: the job.
        listing: the input, which is listed unless it was.
        joining: give the output its place in its series, which is all that is written.
        skip_changed: leave out files that were rewritten since another output of the series planned them.
        warn: told what of the input is left out.

    Raises:
        SourceChangedError: there are such files, and `skip_changed` is not set.
        PipelineError: as `plans.read_taken` and `plans.make_plan` do.
    """
    listing = listing or CorpusFiles(config.input.uri).discover(config.input.format)
    if listing.left_out:
        warn(f"of the input, {listing.left_out}")
    taken = plans.read_taken(config, joining=joining)
    changes = taken.changes(listing)
    if changes and not skip_changed:
        raise SourceChangedError(changes)
    if changes:
        warn(f"{counted(len(changes), 'file')} left out, planned before and rewritten since: {changes[0]}")
    return plans.make_plan(config, encoding_device(config.cluster), listing, taken)


def refuse_changes(
    config: JobConfig, plan: plans.Plan, output: str, listing: Listing, *, skip_changed: bool = False
) -> plans.InputDrift:
    """Compare a stored plan with the job and the input as they are now.

    Raises:
        PlanChangedError: the job asks for something else.
        SourceChangedError: planned files were rewritten or are gone, and `skip_changed` is not set.
    """
    plans.check_unchanged(config, plan, output)
    drift = plans.input_drift(plan, listing)
    if drift.changed and not skip_changed:
        raise SourceChangedError(list(drift.changed.values()))
    return drift


def describe_added(added: list[str]) -> str:
    """Say which files a plan leaves out, and what to do about it."""
    more = ", …" if len(added) > 1 else ""
    return (
        f"{counted(len(added), 'file')} appeared after the plan and will not be embedded: {added[0]}{more}; "
        "an output keeps its input, so give new files an output of their own (output.series keeps count of them)"
    )
