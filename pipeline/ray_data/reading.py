"""The read task: open a read group's files, clean and tokenize, emit one row a unit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import logs
from pipeline.corpus import CorpusFiles, Documents, RowRule, reader_of
from pipeline.corpus.documents import MAX_UNIT_BYTES, Collector, LargeUnitError
from pipeline.corpus.rows import DeadRowError
from pipeline.corpus.scripts import script_codes
from pipeline.encoders.base import PreparedTexts, Preparer
from pipeline.encoders.registry import build_preparer, restore, spec_of
from pipeline.exceptions import ConfigError, PipelineError, SourceChangedError
from pipeline.ray_data import payload
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.reporting import Reporting
from pipeline.records import DeadCode, DeadLetter, Slice, SourceFile, Unit
from pipeline.schema import decode_schema, kept_columns

if TYPE_CHECKING:
    import ray


Alive = Callable[[], None]
"""Called whenever bytes were read: before a unit's rows a whole file may have to be passed over, without any row."""


def read_units(batch: pa.Table, order: WorkOrder, ledger: ray.actor.ActorHandle | None = None) -> Iterator[pa.Table]:
    """Yield one row a unit of a read group, in order; the first error ends the group and travels as data.

    The ledger is given signs of life.
    """
    logs.follow(order.log)
    units = [Unit.from_json(text) for text in batch.column("units")[0].as_py()]
    group = _ReadGroup(order, units, Reporting(ledger, units[0].number).alive if ledger else None)
    for unit in units:
        started = time.perf_counter()
        try:
            with logs.of_unit(unit.number):
                documents = group.read(unit)
                row = _prepared_row(unit, documents, order, time.perf_counter() - started)
        except PipelineError as error:
            yield payload.error_row(unit, error)
            return
        yield row


def read_sample(unit: Unit, rows: int, order: WorkOrder, alive: Alive | None = None) -> PreparedTexts:
    """Read a unit and prepare some of its rows, evenly spread; those too long to be embedded are left out.

    Raises:
        PipelineError: as the run itself would meet it.
    """
    documents = _ReadGroup(order, [unit], alive).read(unit)
    usable = len(documents.texts)
    places = np.unique(np.linspace(0, usable - 1, min(rows, usable)).round().astype(np.intp)).tolist()
    chosen = replace(
        documents,
        texts=[documents.texts[place] for place in places],
        prompts=[documents.prompts[place] for place in places],
    )
    prepared = _prepare(chosen, order)
    return prepared.select(~np.isin(np.arange(len(places)), list(_too_long(prepared, order))))


class _ReadGroup:
    """Reads the units of one group in order, each file in one pass."""

    def __init__(self, order: WorkOrder, units: list[Unit], alive: Alive | None) -> None:
        self._input = order.config.input
        self._files = CorpusFiles(self._input.uri, alive)
        self._skip_changed = order.skip_changed
        rule = RowRule(self._input, order.config.encoder.prompt)
        self._collect = Collector(rule, kept_columns(decode_schema(order.schema)))
        pieces = [piece for unit in units for piece in unit.slices]
        runs = groupby(pieces, key=lambda piece: piece.source)
        self._read = (piece for source, run in runs for piece in self._read_run(source, list(run)))

    def read(self, unit: Unit) -> Documents:
        """Read the next unit.

        Raises:
            ConfigError: it holds more than a unit can.
        """
        try:
            for _ in unit.slices:
                next(self._read)
                self._collect.next_slice()
        except LargeUnitError:
            reason = f"unit {unit.number}, from {unit.slices[0]} on, holds more than {MAX_UNIT_BYTES >> 20:,} MiB"
            raise ConfigError(
                "output.unit_rows", f"{reason} of texts and kept values; plan fewer rows a unit"
            ) from None
        return self._collect.take()

    def _read_run(self, source: SourceFile, run: list[Slice]) -> Iterator[Slice]:
        """Read consecutive slices of one file; with --skip-changed those of a changed file are set aside."""
        done = 0
        try:
            for piece in reader_of(source, self._input).read(self._files, iter(run), self._collect):
                done += 1
                yield piece
        except SourceChangedError as error:
            if not self._skip_changed:
                raise
            for piece in run[done:]:
                self._collect.bury_slice(piece, DeadRowError(DeadCode.SOURCE_CHANGED, error.changes[0]))
                yield piece


def _prepared_row(unit: Unit, documents: Documents, order: WorkOrder, read_seconds: float) -> pa.Table:
    started = time.perf_counter()
    prepared = _prepare(documents, order)
    scripts = {payload.SCRIPT: pa.array(script_codes(documents.texts))}
    prepared = replace(prepared, rows={**prepared.rows, **scripts})
    keep = documents.keep_columns(kept_columns(decode_schema(order.schema)))
    reasons = _too_long(prepared, order)
    if reasons:
        fits = ~np.isin(np.arange(len(documents.texts)), list(reasons))
        keep = {name: column.filter(pa.array(fits)) for name, column in keep.items()}
        prepared = prepared.select(fits)
        documents = _reject(documents, fits, reasons)
    seconds = {"read": read_seconds, "tokenize": time.perf_counter() - started}
    return payload.to_row(unit, documents, keep, prepared, seconds)


def _prepare(documents: Documents, order: WorkOrder) -> PreparedTexts:
    per_row = RowRule(order.config.input, order.config.encoder.prompt).has_prompts
    return _preparer(json.dumps(order.encoder)).prepare(documents.texts, documents.prompts if per_row else None)


def _too_long(prepared: PreparedTexts, order: WorkOrder) -> dict[int, str]:
    """Return the rows that are not embedded for their length, each with the reason."""
    limit = spec_of(order.encoder).limit
    reasons: dict[int, str] = {}
    if order.config.text.long == "reject":
        cut = np.asarray(prepared.rows["truncated"].to_numpy(zero_copy_only=False))
        reasons = {int(row): f"more than {limit}" for row in np.flatnonzero(cut)}
    for row in np.flatnonzero(prepared.no_room):
        reasons[int(row)] = f"its prompt alone fills all {limit}"
    return reasons


def _reject(documents: Documents, fits: npt.NDArray[np.bool_], reasons: dict[int, str]) -> Documents:
    too_long = [
        DeadLetter(
            slice_index=documents.slice_index[row],
            row=documents.source_row[row],
            code=DeadCode.TOO_LONG,
            reason=reason,
        )
        for row, reason in sorted(reasons.items())
    ]
    rows = np.flatnonzero(fits)
    return Documents(
        slice_index=[documents.slice_index[row] for row in rows],
        source_row=[documents.source_row[row] for row in rows],
        ids=[documents.ids[row] for row in rows],
        dead=documents.dead + too_long,
    )


@lru_cache(maxsize=1)
def _preparer(identity: str) -> Preparer:
    """Build the tokenizer once a process."""
    return build_preparer(restore(json.loads(identity), weights=False))
