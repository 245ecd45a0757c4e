"""A run: models one after the other, a cell for each mix, then the whole command, all within one budget."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu import end_to_end
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.contest import GUESS, OURS, Cell, Contest, Options, guarded
from benchmarks.gpu.lengths import MIXES
from benchmarks.speed import models
from benchmarks.speed.attempts import Row, say
from benchmarks.speed.processes import ContenderError

END_TO_END = "end to end"
WHOLE_MODEL, WHOLE_MIX = "gte-base", "mixed"
"""What the whole command runs on, or on the first model without a prompt."""
PROFILED_MODEL, PROFILED_MIX = "gte-base", "512"
"""What is profiled, or else the first cell."""
WEIGHTS = {END_TO_END: 4.0}
LOADING = 1.0
"""What writing and loading a model weighs against a cell."""
LEAST_SECONDS = {END_TO_END: 40.0}
LEAST_CELL_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A model on a mix, or the whole command on it."""

    model: str
    mix: str


def lineup(names: Sequence[str], mixes: Sequence[str]) -> list[Part]:
    """Return a run's parts in order."""
    parts = [Part(model=name, mix=mix) for name in names for mix in MIXES if mix in mixes]
    if END_TO_END in mixes and (whole := whole_model(names)) is not None:
        parts.append(Part(model=whole, mix=END_TO_END))
    return parts


def whole_model(names: Sequence[str]) -> str | None:
    """Return the model that the whole command runs on."""
    plain = [name for name in names if "instructor" not in name]
    return WHOLE_MODEL if WHOLE_MODEL in plain else next(iter(plain), None)


def weights(parts: Sequence[Part], loaded: str | None) -> list[float]:
    """Return what parts still to come weigh; the first one of a model loads it."""
    found, last = [], loaded
    for part in parts:
        loading = part.mix != END_TO_END and part.model != last
        found.append(WEIGHTS.get(part.mix, 1.0) + LOADING * loading)
        last = part.model
    return found


class Bench:
    """One run in a folder of its own; `rows`, `left_out` and `profile` are what it has found so far."""

    def __init__(self, options: Options, budget: Budget, work: Path) -> None:
        self._options, self._budget, self._work = options, budget, work
        self._contest: Contest | None = None
        self._loaded: str | None = None
        self._kept: str | None = None
        self._whole: tuple[Row, Cell] | None = None
        self.rows: list[Row] = []
        self.left_out: list[dict[str, str]] = []
        self.profile: dict[str, Any] | None = None

    def run(self, parts: Sequence[Part], found: Callable[[], None]) -> None:
        """Measure; `found` is called after each part."""
        self._kept = next((part.model for part in parts if part.mix == END_TO_END), None)
        for number, part in enumerate(parts):
            try:
                self._part(part, parts[number:])
            except ContenderError as error:
                self.left_out.append({"model": part.model, "mix": part.mix, "why": str(error)})
                say(f"{part.model}, {part.mix}: left out: {error}")
            found()
        self._close()

    def _part(self, part: Part, rest: Sequence[Part]) -> None:
        seconds = self._budget.share(weights(rest, self._loaded)).seconds
        if seconds < LEAST_SECONDS.get(part.mix, LEAST_CELL_SECONDS):
            raise ContenderError(f"{seconds:.0f} s were left for it")
        if part.mix == END_TO_END:
            self._end_to_end(part.model)
            return
        contest = self._opened(part.model)
        self.rows += contest.measure(part.mix, self._budget.share(weights(rest, self._loaded)))
        if self.profile is None or (part.model, part.mix) == (PROFILED_MODEL, PROFILED_MIX):
            try:
                self.profile = contest.profile(part.mix)
            except ContenderError as error:
                self.left_out.append({"model": part.model, "mix": f"{part.mix}, profile", "why": str(error)})

    def _end_to_end(self, name: str) -> None:
        if missing := end_to_end.missing():
            raise ContenderError(f"not installed: {', '.join(missing)}")
        if self._whole is None:
            self._opened(name)
        self._close()  # the device is the command's
        empty, cell = self._whole
        rates = {row.mix: tokens_per_s(row) for row in self.rows if row.model == name and is_encoder(row) and row.turns}
        guessed = GUESS * self._options.peak[empty.dtype] * empty.tokens / empty.flops
        rate = rates.get(WHOLE_MIX) or max(rates.values(), default=guessed)
        folder, model, seconds = self._work / "end-to-end", self._model(name), self._budget.left
        self.rows.append(end_to_end.measure(empty, cell, model, self._options.device, folder, rate, seconds))

    def _opened(self, name: str) -> Contest:
        """Return a model's contest, opened when its first part comes."""
        if self._loaded != name:
            self._close()
            self._loaded, model = name, self._model(name)  # also where it fails: it is not tried again
            with guarded():
                models.write(name, model.folder)
                self._contest = Contest(model, self._options)
                if name == self._kept:
                    self._whole = self._contest.sample(WHOLE_MIX)
        if self._contest is None:
            raise ContenderError("the model did not load")
        return self._contest

    def _close(self) -> None:
        if self._contest is not None:
            self._contest.close()
            self._contest = None
        if self._loaded not in (None, self._kept):
            shutil.rmtree(self._model(self._loaded).folder, ignore_errors=True)
        self._loaded = None

    def _model(self, name: str) -> models.Model:
        return models.find(name, self._work)


def is_encoder(row: Row) -> bool:
    """Whether a row is of embatch's encoder alone."""
    return row.label == f"{OURS}, from token ids"


def tokens_per_s(row: Row) -> float:
    """Return the median of a row's turns."""
    return row.tokens / median(turn.encoding for turn in row.turns)
