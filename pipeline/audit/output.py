"""The audit as a whole: plan, manifest, every shard, every source file, and what else lies under data/."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from pipeline import plan as plans
from pipeline.audit.coding import Coding, audit_coding
from pipeline.audit.contents import InputAudit
from pipeline.audit.findings import Findings, VerifyReport
from pipeline.audit.manifest import HEAD, Entry, audit_manifest
from pipeline.audit.shards import ShardAudit, audit_shard, shard_key
from pipeline.audit.sources import InputFiles
from pipeline.audit.units import unit_faults
from pipeline.exceptions import DamagedOutputError, PipelineError
from pipeline.fingerprint import combine_digests
from pipeline.plan import Plan
from pipeline.storage import Store, client_errors, open_store

READERS = 2
SHARDS_AHEAD = 2
"""Shards held in memory beside the one that is compared with its source."""


def verify(
    output_uri: str, *, allow_partial: bool = False, check_input: bool = True, input_uri: str | None = None
) -> VerifyReport:
    """Audit an output; what is wrong stands in the report's findings and is never raised.

    Args:
        output_uri: an embatch output.
        allow_partial: accept an output without a manifest, and audit the shards that are there.
        check_input: read the source files again and compare every row with them.
        input_uri: where the input is now, files of new times or ETags; where it was planned, as it was, when None.

    Raises:
        ConfigError: no embatch output is there, or nothing at the input.
        SourceReadError: the input's store gives no access.
        StorageError: a store does not answer.
    """
    started = time.monotonic()
    store = open_store(output_uri)
    tally = _Tally()
    plan = _load_plan(store, tally.findings)
    if plan is not None:
        manifest = audit_manifest(store, plan)
        tally.complete = manifest.present
        tally.findings.extend(manifest.findings)
        if not manifest.present and not allow_partial:
            tally.findings.add(f"the output is not complete: it has no {HEAD}")
        missing_is_fine = allow_partial and not manifest.present
        with _input_files(plan, input_uri, check_input=check_input) as files:
            _audit_units(store, plan, manifest.entries, files, tally, missing_is_fine=missing_is_fine)
        tally.findings.extend(_foreign(store, plan))
    return tally.report(store.uri, plan, time.monotonic() - started)


@contextmanager
def _input_files(plan: Plan, moved_to: str | None, *, check_input: bool) -> Iterator[InputFiles | None]:
    """Give access to the input; a store that refuses it or does not answer is no fault of the output."""
    uri = moved_to or plan.requested["input"]["uri"]
    try:
        yield InputFiles(uri, moved=moved_to is not None) if check_input else None
    except PipelineError:
        raise
    except client_errors(uri) as error:
        from pipeline.storage.failures import source_failure

        raise source_failure(uri, error) from error


def _load_plan(store: Store, findings: Findings) -> Plan | None:
    try:
        return plans.require(store)
    except DamagedOutputError as error:
        findings.extend(f"the plan is damaged: {finding}" for finding in error.findings)
    except (KeyError, TypeError, ValueError) as error:
        findings.add(f"the plan is damaged: {type(error).__name__}: {error}")
    return None


def _audit_units(
    store: Store,
    plan: Plan,
    entries: Mapping[int, Entry],
    files: InputFiles | None,
    tally: _Tally,
    *,
    missing_is_fine: bool,
) -> None:
    faults = unit_faults(plan)
    coding, uncoded = audit_coding(store, plan)
    tally.findings.extend([*faults, *uncoded])
    source = None if files is None or faults else InputAudit(plan, files, coding)
    for shard in _shards(store, plan, entries, coding):
        tally.add(shard, missing_is_fine=missing_is_fine)
        tally.findings.extend(source.compare(shard) if source else ())
    tally.findings.extend(source.close() if source else ())


def _shards(store: Store, plan: Plan, entries: Mapping[int, Entry], coding: Coding) -> Iterator[ShardAudit]:
    """Audit all units, some ahead of the caller, in order."""
    ahead: deque[Future[ShardAudit]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for unit in plan.units:
            ahead.append(pool.submit(audit_shard, store, plan, unit, entries.get(unit.number), coding))
            if len(ahead) > SHARDS_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _Tally:
    """What the shards add up to, and whether they tell the same of the encoder."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.complete = False
        self._rows = 0
        self._dead: Counter[str] = Counter()
        self._digests: list[str] = []
        self._described: tuple[str, Mapping[str, str]] | None = None

    def add(self, shard: ShardAudit, *, missing_is_fine: bool) -> None:
        """Take the next unit."""
        self.findings.extend(shard.findings)
        if not shard.present and not missing_is_fine:
            self.findings.add(f"{shard.key}: unit {shard.unit.number} has no shard")
        if shard.table is None or shard.content_digest is None:
            return
        self._rows += len(shard.table)
        self._dead.update(shard.dead_codes or ())
        self._digests.append(shard.content_digest)
        self._described = self._described or (shard.key, shard.description)
        first, stated = self._described
        for name in sorted(stated.keys() | shard.description.keys()):
            one, other = stated.get(name), shard.description.get(name)
            if one != other:
                self.findings.add(f"{shard.key}: its footer says {name} {other}, that of {first} says {one}")

    def report(self, output: str, plan: Plan | None, seconds: float) -> VerifyReport:
        """Close the audit."""
        whole = plan is not None and len(self._digests) == len(plan.units)
        return VerifyReport(
            output=output,
            plan_id=plan.plan_id if plan else "",
            complete=self.complete,
            trial=plan.trial if plan else False,
            units=len(self._digests),
            rows=self._rows,
            dead_by_code=dict(sorted(self._dead.items())),
            content_digest=combine_digests(self._digests) if whole else None,
            findings=self.findings.sentences(),
            seconds=round(seconds, 2),
        )


def _foreign(store: Store, plan: Plan) -> Iterator[str]:
    ours = {shard_key(plan.plan_id, unit.number) for unit in plan.units}
    for stored in store.list("data"):
        if stored.key not in ours:
            yield f"{stored.key}: is not a shard of this plan"
