"""Encode a sample of the plan's units before any is committed, for the calibration that all of them share.

Apart from the path that commits: actors of the pool's kind read, encode and return vectors, and end before it begins.
A unit's vectors are the same whichever of them encodes it, so that an answer may be awaited from two.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import ray

from pipeline import failpoints
from pipeline.calibration import Calibration, calibrate
from pipeline.encoders.base import Vectors
from pipeline.exceptions import PipelineError, PoisonUnitError, from_json, to_json
from pipeline.plan import Plan, sample_units
from pipeline.ray_data.assembling import usable
from pipeline.ray_data.dataset import ACTOR_RESTARTS
from pipeline.ray_data.head import joined_head
from pipeline.ray_data.ledger import PULSE_TIMEOUT_SECONDS, pulse_of, start_ledger
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.pool import Pool
from pipeline.ray_data.reading import read_sample
from pipeline.ray_data.replica import Replica
from pipeline.ray_data.reporting import Reporting
from pipeline.ray_data.watchdog import Watchdog
from pipeline.records import Unit

TICK_SECONDS = 1.0
COPIES = 2
"""Replicas that may be at one unit: where one is lost with its node, another is free. What is paid for is asked once.
"""

Look = Callable[[int, int], None]
"""Called each second with the units that are encoded and those of the sample; may raise."""
Answer = tuple[npt.NDArray[np.float32] | None, int, str | None]
Chosen = list[tuple[Unit, int]]


class SampleReplica:
    """One encoder replica that returns vectors; errors travel as data."""

    def __init__(self, order: WorkOrder, ledger: ray.actor.ActorHandle) -> None:
        self._order, self._ledger = order, ledger
        self._replica = Replica(order, ledger)

    def encode(self, unit: Unit, rows: int) -> Answer:
        """Return the usable vectors of some rows of a unit, float32 [rows, dimension], or an error as JSON.

        Between them stands how many tokens were encoded.
        """
        try:
            return *self._encode(unit, rows), None
        except PipelineError as error:
            return None, 0, to_json(error)

    def _encode(self, unit: Unit, rows: int) -> tuple[Vectors, int]:
        normalized = self._replica.spec.normalized
        failpoints.hit("calibration.encode", unit.number)
        reporting = Reporting(self._ledger, unit.number)
        prepared = read_sample(unit, rows, self._order, reporting.alive)
        found = self._replica.encode(unit, prepared, reporting)
        tokens = int(prepared.n_tokens.sum()) if found.tokens is None else found.tokens
        return found.vectors[usable(found.vectors, normalized=normalized)], tokens


def make_calibration(plan: Plan, order: WorkOrder, pool: Pool, look: Look) -> Calibration:
    """Make a plan's calibration from its sample; nothing is written.

    Raises:
        PipelineError: the first error of a replica, a stall, or what `look` raises.
        PoisonUnitError: a unit lost its replica as often as one may.
    """
    vectors, tokens = _encode_sample(sample_units(plan.units), order, pool, look)
    return calibrate(plan.plan_id, plan.vectors, plan.resolved["encoder"]["dimension"], vectors, tokens)


def _encode_sample(chosen: Chosen, order: WorkOrder, pool: Pool, look: Look) -> tuple[list[Vectors], int]:
    """Encode the chosen rows; one array a unit, in their order, and the tokens of all."""
    if not chosen:
        return [], 0
    limits = order.config.limits
    ledger, head, pulse = start_ledger(), joined_head(), None
    watchdog = Watchdog(limits.stall_seconds, time.monotonic())
    with _replicas(min(pool.first, len(chosen)), order, pool, ledger) as replicas:
        work = _Sampling(chosen, replicas, copies=1 if order.config.encoder.remote else COPIES)
        while not work.done:
            arrived, _ = ray.wait(list(work.calls), timeout=TICK_SECONDS)
            for call in arrived:
                try:
                    work.take(call)
                except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                    unit = work.unit(call)
                    raise PoisonUnitError(unit.number, limits.unit_attempts, unit.pieces) from error
            look(work.answered, len(chosen))
            head.look(time.monotonic())
            pulse = pulse_of(ledger, PULSE_TIMEOUT_SECONDS) or pulse
            moves = work.answered + (pulse.moves if pulse else 0)
            watchdog.look(time.monotonic(), moves, work.waiting)
        return work.vectors, work.tokens


@contextmanager
def _replicas(
    count: int, order: WorkOrder, pool: Pool, ledger: ray.actor.ActorHandle
) -> Iterator[list[ray.actor.ActorHandle]]:
    """Hold replicas; their devices and memory are free again after the block."""
    retries = order.config.limits.unit_attempts - 1
    kind = ray.remote(SampleReplica).options(max_restarts=ACTOR_RESTARTS, max_task_retries=retries, **pool.resources)
    replicas = [kind.remote(order, ledger) for _ in range(count)]
    try:
        yield replicas
    finally:
        for replica in (*replicas, ledger):
            ray.kill(replica, no_restart=True)


class _Sampling:
    """Which units are done, which are with which replica; a replica has one at a time."""

    def __init__(self, chosen: Chosen, replicas: list[ray.actor.ActorHandle], *, copies: int) -> None:
        self._chosen, self._copies = chosen, copies
        self._found: dict[int, tuple[Vectors, int]] = {}
        self._left = deque(range(len(chosen)))
        self.calls: dict[ray.ObjectRef, tuple[int, ray.actor.ActorHandle]] = {}
        for replica in replicas:
            self._give(replica)

    @property
    def done(self) -> bool:
        """Whether all units were answered."""
        return len(self._found) == len(self._chosen)

    @property
    def answered(self) -> int:
        """Units that were answered."""
        return len(self._found)

    @property
    def waiting(self) -> list[int]:
        """Numbers of units that replicas are at."""
        return sorted({self._chosen[place][0].number for place, _ in self.calls.values()})

    @property
    def vectors(self) -> list[Vectors]:
        """What was answered, in order of the units."""
        return [self._found[place][0] for place in range(len(self._chosen))]

    @property
    def tokens(self) -> int:
        """Tokens of what was answered, each unit counted once."""
        return sum(tokens for _, tokens in self._found.values())

    def unit(self, call: ray.ObjectRef) -> Unit:
        """Return the unit a call is about."""
        return self._chosen[self.calls[call][0]][0]

    def take(self, call: ray.ObjectRef) -> None:
        """Take an answer, and give the replica more to do.

        Raises:
            PipelineError: it is an error.
        """
        vectors, tokens, error = ray.get(call)
        if error is not None:
            raise from_json(error)
        place, replica = self.calls.pop(call)
        self._found[place] = vectors, tokens
        self._give(replica)

    def _give(self, replica: ray.actor.ActorHandle) -> None:
        """Give a replica the next unit; at the end, one that another is still at."""
        if self._left:
            place = self._left.popleft()
        else:
            held = [place for place, _ in self.calls.values() if place not in self._found]
            alone = [place for place in held if held.count(place) < self._copies]
            if not alone:
                return
            place = alone[0]
        self.calls[replica.encode.remote(*self._chosen[place])] = (place, replica)
