"""Wire one wave of units: from_items, read tasks, encoding actors, receipts.

CPU replicas take one CPU and read tasks none, capped by their pool; GPU replicas take a GPU and no CPU. So
lost payloads can always be rebuilt: with both at one CPU a lost node makes the job hang.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline.exceptions import InterruptedRunError, from_json
from pipeline.ray_data.encoding import EncodeAndCommit
from pipeline.ray_data.order import CALLS_PER_ACTOR, WorkOrder
from pipeline.ray_data.pool import Pool
from pipeline.ray_data.reading import read_units
from pipeline.ray_data.running import Running
from pipeline.records import Receipt, Unit

WAVE_UNITS = 20_000
TASK_RETRIES = 5
READER_CALLS = 32
"""A worker that reads grows by 0.1 to 0.4 MB a task, in Ray; after so many another takes its place."""
ACTOR_RESTARTS = 100
"""Far above what the ledger lets one unit cause; bounds what else may kill workers."""
NO_PROGRESS_SECONDS = 4 * 3600
"""Ray Data's own guard; ours is `limits.stall_seconds`."""


def waves(units: list[Unit]) -> Iterator[list[Unit]]:
    """Cut pending units into waves that one dataset can hold, never inside a read group.

    Large groups come first, so that at the end no replica works long while the others have nothing left.
    """
    wave: list[Unit] = []
    groups = [list(members) for _, members in groupby(units, key=lambda unit: unit.group)]
    for members in sorted(groups, key=lambda members: -sum(unit.size_bytes for unit in members)):
        if wave and len(wave) + len(members) > WAVE_UNITS:
            yield wave
            wave = []
        wave += members
    if wave:
        yield wave


def receipts(units: list[Unit], order: WorkOrder, pool: Pool, ledger: ray.actor.ActorHandle) -> Iterator[Receipt]:
    """Run one wave; yield receipts as units are committed, in any order.

    Raises:
        PipelineError: the first one that a task or an actor reports.
        InterruptedRunError: Ray gave up on a worker, or one lacked memory, a disk or the like.
        ray.exceptions.RayTaskError: a bug of ours in a worker; to try again would end in the same way.
    """
    dataset = _dataset(units, order, pool, ledger)
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from _parse(block)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ray.exceptions.RayError | MemoryError | OSError):
            raise
        raise InterruptedRunError(f"a worker failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise InterruptedRunError(f"Ray gave up: {_first_line(error)}") from error


def _dataset(units: list[Unit], order: WorkOrder, pool: Pool, ledger: ray.actor.ActorHandle) -> ray.data.Dataset:
    _configure(DataContext.get_current())
    groups = [
        {"units": [unit.to_json() for unit in members]} for _, members in groupby(units, key=lambda unit: unit.group)
    ]
    with warnings.catch_warnings():
        # finite retries have no named arguments yet; Ray is pinned
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
        source = ray.data.from_items(groups, override_num_blocks=len(groups))
        prepared = source.map_batches(
            read_units,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"order": order, "ledger": ledger},
            num_cpus=1 if pool.gpus else 0,
            compute=TaskPoolStrategy(size=pool.readers),
            max_retries=TASK_RETRIES,
            max_calls=READER_CALLS,
        )
        return prepared.map_batches(
            EncodeAndCommit,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_kwargs={"order": order, "ledger": ledger},
            compute=ActorPoolStrategy(
                min_size=pool.fewest,
                max_size=pool.most,
                initial_size=pool.first,
                max_tasks_in_flight_per_actor=2 * CALLS_PER_ACTOR,
                max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
                enable_true_multi_threading=True,
            ),
            max_restarts=ACTOR_RESTARTS,
            max_task_retries=ACTOR_RESTARTS,
            **pool.resources,
        )


def _configure(context: DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = 3
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    context.target_max_block_size = 1  # one block a unit: what is in flight is counted in units
    context.execution_options.preserve_order = False
    context.custom_execution_callback_classes = [Running]


def _parse(block: pa.Table) -> Iterable[Receipt]:
    for text, error in zip(block.column("receipt").to_pylist(), block.column("error").to_pylist(), strict=True):
        if error is not None:
            raise from_json(error)
        if text is not None:  # else it was not to begin any more
            yield Receipt.from_json(text)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
