"""The whole job, readable in one sitting: plan, claim, encode what is missing, audit, publish."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline import logs, page, planning
from pipeline import plan as plans
from pipeline.calibration import UNCODED, Calibration
from pipeline.checkpoint import calibrations, claims, commits, completeness, manifest, receipts
from pipeline.config import JobConfig
from pipeline.corpus import CorpusFiles
from pipeline.course import Course
from pipeline.encoders import registry
from pipeline.exceptions import EmptyInputError, InterruptedRunError, StorageError
from pipeline.plan import Plan
from pipeline.ray_data.order import CALLS_PER_ACTOR, WorkOrder, make_order
from pipeline.ray_data.pool import Pool, plan_pool
from pipeline.ray_data.session import Session, ray_session
from pipeline.records import Receipt
from pipeline.report import RunReport, Timing, describe_vectors, exit_code, output_totals, run_totals
from pipeline.stopping import Stop
from pipeline.storage import open_store
from pipeline.telemetry import Listener, Silent
from pipeline.tracking import Tracker

if TYPE_CHECKING:
    from pipeline.ray_data.driving import Event
    from pipeline.ray_data.metrics import Metrics

logger = logging.getLogger(__name__)

RECEIPTS_A_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a command may add to a job without changing its output's identity."""

    takeover: bool = False
    single_writer: bool = False
    skip_changed: bool = False
    fail_on_empty: bool = False
    started: float | None = None
    """When the command began, on `time.monotonic()`; None: with the call of `run`."""
    stop: Stop | None = None
    """What signal handlers ask to end the run; None: signals are not heard, only limits."""


def run(config: JobConfig, options: RunOptions = RunOptions(), listener: Listener | None = None) -> RunReport:
    """Embed a corpus, or what is missing of it, and publish the manifest.

    The same call again continues after any interruption and does nothing after success.

    Raises:
        PipelineError: with its exit code; the output is then resumable, never damaged.
    """
    return _Run(config, options, listener or Silent()).execute()


class _Run:
    """One run's state; methods in the order of its life."""

    def __init__(self, config: JobConfig, options: RunOptions, listener: Listener) -> None:
        self._config, self._options, self._listener = config, options, listener
        self._store = open_store(config.output.uri)
        self._plan: Plan | None = None
        self._receipts: dict[int, Receipt] = {}
        self._earlier: set[int] = set()
        self._warnings: list[str] = []
        self._timing = Timing(started=time.monotonic() if options.started is None else options.started)
        self._stop = options.stop or Stop(config.limits, self._timing.started)
        self._replicas, self._course = 0, Course()
        self._head: dict[str, Any] | None = None
        self._facts = {"run_id": uuid.uuid4().hex, "job": config.name}
        self._calibration: Calibration | None = None
        self._sampled = 0

    def execute(self) -> RunReport:
        self._listener.identified(self._facts)
        self._plan = plans.load(self._store)
        if self._plan is None:
            plans.refuse_foreign(self._store)
        else:
            self._refuse_changes(self._plan)
            if self._is_complete(self._plan):
                self._refuse_empty(self._plan)
                return self._report(None, None)
        if not self._options.single_writer:
            claims.require_create_only(self._store)
        claim = claims.acquire(self._store, owner_id=self._facts["run_id"], takeover=self._options.takeover)
        with claims.held(claim, lambda error: asdict(self._report(claim.run, error)), page.render):
            if self._plan is None:
                skip = self._options.skip_changed
                made = planning.make(self._config, joining=True, skip_changed=skip, warn=self._warn)
                plans.publish(self._store, made)
                self._plan = made  # not before: a report speaks of plans that stand
            self._facts["plan_id"] = self._plan.plan_id
            self._listener.identified(self._facts)
            listed = self._load_receipts(self._plan)
            if len(self._receipts) < len(self._plan.units):
                self._stop.look(cost=self._config.encoder.cost(self._tokens()) or 0.0)
                with ray_session(self._config.cluster) as session:
                    self._encode(self._plan, claim, session)
                listed = commits.look(self._store, self._plan.plan_id)
            self._finish(self._plan, listed)
        return self._report(claim.run, None)

    def _refuse_changes(self, plan: Plan) -> None:
        listing = CorpusFiles(self._config.input.uri).discover(self._config.input.format)
        drift = planning.refuse_changes(
            self._config, plan, self._store.uri, listing, skip_changed=self._options.skip_changed
        )
        if drift.added:
            self._warn(planning.describe_added(drift.added))

    def _is_complete(self, plan: Plan) -> bool:
        """A manifest stands, and at a quick look its shards do too; what was deleted since is made again.

        Raises:
            DamagedOutputError: what is there is not what the manifest says.
        """
        self._head = manifest.load_head(self._store)
        if self._head is None:
            return False
        entries = manifest.require_of(self._store, plan.plan_id, plan.units, self._head)
        listed = commits.look(self._store, plan.plan_id)
        found = {entry.unit: listed.shards.get(entry.unit) or self._store.head(entry.key) for entry in entries}
        lost = [unit for unit, stored in found.items() if stored is None]
        if lost:
            self._head = None
            self._warn(f"{len(lost)} shards of the finished output are gone; they are made again")
            return False
        self._receipts = {entry.unit: entry for entry in entries}
        completeness.require(self._store, plan.units, self._receipts, listed)
        self._calibration = calibrations.load(self._store, plan.plan_id, plan.vectors)
        self._earlier = set(self._receipts)
        return True

    def _load_receipts(self, plan: Plan) -> commits.Listed:
        """Take what is committed for done; returns the listing that says so."""
        listed = commits.look(self._store, plan.plan_id)
        self._receipts = receipts.load(self._store, plan.plan_id, listed.shards)
        # after the listing: what a shard was made with was there before it
        self._calibration = calibrations.load(self._store, plan.plan_id, plan.vectors)
        calibrations.refuse_others(self._store, self._calibration, self._receipts.values())
        self._earlier = set(self._receipts)
        return listed

    def _encode(self, plan: Plan, claim: claims.Claim, session: Session) -> None:
        from pipeline.ray_data.driving import drive  # Ray Data takes a second to import
        from pipeline.ray_data.metrics import Metrics
        from pipeline.ray_data.sharing import require_shared

        pending = [unit for unit in plan.units if unit.number not in self._receipts]
        spec = registry.restore(plan.resolved["encoder"])
        pool = plan_pool(self._config.cluster, session, plan.resolved["device"], spec)
        order = make_order(
            self._config,
            plan,
            threads=max(session.cpus // pool.most, 1) if session.local else 1,
            skip_changed=self._options.skip_changed,
            log=dict(self._facts) if logs.installed() else None,
        )
        self._replicas = pool.most
        if not session.local:
            require_shared(order, plan.sources[0])
        tracker, metrics = Tracker(plan, self._receipts), Metrics(self._config.name)
        claim.report_with(lambda: asdict(tracker.progress()))
        self._listener.planned(tracker.progress(), lost_work_units=pool.most * CALLS_PER_ACTOR)
        order = self._calibrated(plan, order, pool, claim, tracker)
        log = receipts.ReceiptLog(self._store, claim.run, RECEIPTS_A_BATCH)
        began, tokens, earlier = time.monotonic(), 0, self._tokens()
        try:
            events = drive(pending, order, pool, self._config.limits.stall_seconds, self._stop)
            with self._stop.encoding(), closing(events):
                for event in events:
                    tokens += event.receipt.tokens if event.receipt else 0
                    self._follow(event, tracker, log, metrics)
                    claim.require()
                    now = tokens + event.tokens_in_flight
                    self._stop.look(self._sampled + now, self._config.encoder.cost(earlier + now) or 0.0)
        except BaseException:
            with suppress(StorageError):  # a cache; the error that ends the run is the one to tell
                log.flush()
            raise
        finally:
            self._timing.encoding_seconds = time.monotonic() - began
            self._course.sample(self._timing.elapsed, *tracker.encoded, last=True)
        log.flush()

    def _tokens(self) -> int:
        """Tokens of all that is committed, by earlier runs too, and of a calibration's sample."""
        sample = (self._calibration and self._calibration.sample_tokens) or 0
        return sample + sum(receipt.tokens for receipt in self._receipts.values())

    def _follow(self, event: Event, tracker: Tracker, log: receipts.ReceiptLog, metrics: Metrics) -> None:
        """Take a receipt, and show where the run is."""
        if event.receipt is not None:
            metrics.committed(event.receipt)
            receipt = self._course.take(event.receipt)
            self._receipts[receipt.unit] = receipt
            log.add(receipt)
            self._timing.last = time.monotonic()
        self._timing.first = event.first
        self._course.devices, self._course.hosts = event.devices, event.hosts
        tracker.update(event.receipt, event.rows_in_flight, event.tokens_in_flight)
        self._course.sample(self._timing.elapsed, *tracker.encoded)
        progress = tracker.progress()
        metrics.stands(progress, sum(event.devices.values()))
        self._listener.progressed(progress)
        if event.warning is not None:
            self._warn(event.warning)

    def _calibrated(self, plan: Plan, order: WorkOrder, pool: Pool, claim: claims.Claim, tracker: Tracker) -> WorkOrder:
        """Add the job's one calibration to the orders: the one that is there, else one made now, before any commit."""
        from pipeline.ray_data.calibrating import make_calibration

        def look(done: int, units: int) -> None:
            tracker.sampled(done, units)
            self._listener.progressed(tracker.progress())
            claim.require()
            self._stop.look()

        if self._calibration is None and plan.vectors != UNCODED:
            made = make_calibration(plan, order, pool, look)
            self._calibration = calibrations.publish(self._store, made)
            tracker.sampled(0, 0)
            self._sampled = made.sample_tokens or 0
            # not before: a limit that is less than a sample would let no run get beyond it
            self._stop.look(self._sampled, self._config.encoder.cost(self._tokens()) or 0.0)
        return order.calibrated(self._calibration) if self._calibration else order

    def _finish(self, plan: Plan, listed: commits.Listed) -> None:
        """Audit what the store holds, then create the manifest."""
        calibrations.refuse_others(self._store, self._calibration, self._receipts.values())
        for unit in plan.units:
            if unit.number not in self._receipts:
                raise InterruptedRunError(f"unit {unit.number} gave no receipt")
        completeness.require(self._store, plan.units, self._receipts, listed)
        self._refuse_empty(plan)
        ordered = [self._receipts[unit.number] for unit in plan.units]
        completeness.refuse_dead_rate(manifest.total(ordered), self._config.limits.max_dead_rate)
        self._head = manifest.publish(self._store, plan.plan_id, ordered, single_writer=self._options.single_writer)

    def _refuse_empty(self, plan: Plan) -> None:
        if plan.rows == 0 and self._options.fail_on_empty:
            raise EmptyInputError(self._config.input.uri)

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._listener.warned(message)

    def _report(self, run_number: int | None, error: BaseException | None) -> RunReport:
        committed = list(self._receipts.values())
        encoded = [receipt for receipt in committed if receipt.unit not in self._earlier]
        started, ended = self._timing.span()
        units = self._plan.units if self._plan else []
        totals = output_totals(committed, self._plan)
        this_run = run_totals(encoded, self._timing, self._replicas, self._course, units)
        totals["cost"] = self._config.encoder.cost(self._tokens())
        this_run["cost"] = self._config.encoder.cost(this_run["tokens"] + self._sampled)
        return RunReport(
            name=self._config.name,
            output=self._store.uri,
            run=run_number,
            run_id=self._facts["run_id"],
            plan_id=self._plan.plan_id if self._plan else "",
            started=started,
            ended=ended,
            complete=self._head is not None and error is None,
            exit_code=exit_code(error),
            error=None if error is None else str(error) or type(error).__name__,
            trial=self._plan.trial if self._plan else False,
            totals=totals,
            this_run=this_run,
            vectors=describe_vectors(self._plan, self._calibration, committed),
            content_digest=self._head["content_digest"] if self._head and error is None else None,
            encoder=self._plan.resolved["encoder"] if self._plan else {},
            device=self._plan.resolved["device"] if self._plan else "",
            replicas=self._replicas,
            devices=self._course.devices,
            hosts=self._course.hosts,
            versions=claims.versions(),
            parameters=self._config.model_dump(mode="json"),
            warnings=self._warnings,
        )
