"""One model: its engines side by side in memory; on each mix all are checked, tuned, and take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gpu import kernels
from benchmarks.gpu.budget import Share
from benchmarks.gpu.engines import Embatch, Engine, SentenceTransformers, Source, Transformers, spec_of
from benchmarks.gpu.lengths import MIXES, Lengths, Work
from benchmarks.speed.attempts import CHECKED, Attempt, Row, agreement, say
from benchmarks.speed.models import Counter, Model
from benchmarks.speed.processes import ContenderError, Turn

from pipeline.encoders import registry

OURS, PEER, PLAIN = "embatch", "sentence-transformers", "transformers, padded"
GUESS = 0.3
"""Share of the peak by which cells are sized."""
TURNS = 50
"""About how many of embatch's turns a whole cell takes, peers and their tuning included."""
CLIMBS: dict[str, list[dict[str, Any]]] = {
    PEER: [{"batch_size": size} for size in (32, 64, 128, 256, 512)],
    PLAIN: [{"max_batch_tokens": size} for size in (8192, 16_384, 32_768, 65_536, 131_072)],
}
"""Settings that are tried upwards until one is slower than the last."""
TRIAL_TEXTS = 512
"""So many texts or a third of a cell, to try settings on."""
TUNING = 0.4
"""Share of a cell's time after which no more settings are tried."""
LATE = 2.0
"""Times its share after which a cell starts no contender's first turn."""
NO_TIME = "no time was left"
PROFILED = {"cuda": 4, "cpu": 1}
"""Batches that are profiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An engine with its settings, and what it is given."""

    engine: str
    source: Source
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)
    cut: bool = False
    """Whether time ended before all settings were tried."""

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.engine}, from {self.source}"

    @property
    def settings(self) -> str:
        """What it runs with."""
        cut = ["not all settings tried"] if self.cut else []
        return ", ".join([self.dtype, *(f"{key} {value}" for key, value in self.options.items()), *cut])


ENTRIES: tuple[tuple[str, Source], ...] = (
    (OURS, "token ids"),
    (PLAIN, "token ids"),
    (PEER, "token ids"),
    (OURS, "texts"),
    (PEER, "texts"),
)
"""In order of their turns; what takes texts takes over what was chosen on tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long and how often contenders run; `peak` has the FLOP/s of each dtype."""

    device: str
    seconds: float
    rounds: int
    peak: dict[str, float]
    data: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What contenders are given on one mix.

    `trial` are texts that settings are tried on, `few` those of `rows`, and `reference` the float32 vectors of these.
    """

    mix: str
    work: Work
    trial: Work
    rows: list[int]
    few: Work
    reference: np.ndarray


class Contest:
    """A model on the device."""

    def __init__(self, model: Model, options: Options) -> None:
        self._model, self._options = model, options
        self._spec = spec_of(model, options.device)
        self._counter = Counter(model, self._spec)
        preparer = registry.build_preparer(self._spec)
        self._lengths = Lengths(model.folder, preparer, self._counter.limit, options.data)
        self._reference = SentenceTransformers(model, options.device, "float32")
        self._engines: dict[tuple[str, str], Engine] = {}
        self._broken: dict[tuple[str, str], str] = {}
        self._warm_up()

    def close(self) -> None:
        """Free the device's memory."""
        del self._reference
        self._engines.clear()
        _free()

    def measure(self, mix: str, share: Share) -> list[Row]:
        """Check all contenders, look for the peers' best settings, then take turns while the share lasts."""
        cell = self.cell(mix, min(self._options.seconds, share.seconds / TURNS))
        chosen = {engine: self._chosen(engine, cell, share) for engine in (OURS, PEER, PLAIN)}
        attempts = [self._attempt(replace(chosen[engine], source=source), cell) for engine, source in ENTRIES]
        self._take_turns(attempts, share)
        return [attempt.row for attempt in attempts]

    def profile(self, mix: str) -> dict[str, Any]:
        """Profile embatch's encoder on the tokens of a few full batches, or of one on a CPU."""
        batches = PROFILED[self._options.device]
        found = self._lengths.work(mix, batches * self._spec.max_batch_tokens)
        one = self._contender(OURS)
        with guarded():
            engine = self._engine(one)
            engine.take(found)
            profiled = kernels.profile_forward(
                lambda: engine.encode(one.source, **one.options), torch.device(self._options.device)
            )
        sizes = {"texts": len(found.texts), "tokens": int(found.lengths.sum()), "batches": batches}
        return {"model": self._model.key, "mix": mix, **sizes, **profiled}

    def cell(self, mix: str, seconds: float) -> Cell:
        """Make the texts that embatch should about take so long for."""
        rate = GUESS * self._options.peak[self._spec.dtype] / self._counter.flops_per_token
        work = self._lengths.work(mix, int(seconds * rate))
        rows = np.linspace(0, len(work.texts) - 1, CHECKED).astype(int).tolist()
        few = work.take(rows)
        say(f"{self._model.key}, {mix}: {len(work.texts):,} texts, {work.lengths.sum():,} tokens")
        self._reference.take(few)
        reference = self._reference.encode("texts")
        trial = work.take(list(range(min(max(len(work.texts) // 3, TRIAL_TEXTS), len(work.texts)))))
        return Cell(mix=mix, work=work, trial=trial, rows=rows, few=few, reference=reference)

    def sample(self, mix: str) -> tuple[Row, Cell]:
        """Return texts for a program outside of this process, and an empty line of the table."""
        cell = self.cell(mix, self._options.seconds)
        return self.row(self._contender(OURS), cell), cell

    def row(self, one: Contender, cell: Cell) -> Row:
        """Return an empty line of the table."""
        return Row(
            model=self._model.key,
            mix=cell.mix,
            label=one.label,
            settings=one.settings,
            dtype=one.dtype,
            texts=len(cell.work.texts),
            tokens=int(cell.work.lengths.sum()),
            flops=self._counter.flops(cell.work.lengths),
        )

    def _warm_up(self) -> None:
        """Load all engines and let them compile what they compile, before any cell's time runs."""
        work = self._lengths.work(MIXES[-1], 0)
        for engine in (OURS, PEER, PLAIN):
            with suppress(ContenderError):  # a cell will say why
                self._run(self._contender(engine), work)

    def _contender(self, engine: str) -> Contender:
        return Contender(engine=engine, source="token ids", dtype=self._spec.dtype)

    def _chosen(self, engine: str, cell: Cell, share: Share) -> Contender:
        """Climb through an engine's settings, then try what else may be faster; the first ones where none works."""
        ways = [replace(self._contender(engine), options=options) for options in CLIMBS.get(engine, [])]
        if not ways:
            return self._contender(engine)
        best, fastest = ways[0], inf
        for one in ways:
            seconds = self._trial(one, cell)
            if seconds >= fastest:
                break
            best, fastest = one, seconds
            if not share.allows(seconds, of=TUNING):
                return replace(best, cut=True)
        for one in self._variants(best):
            if not share.allows(fastest, of=TUNING):
                return replace(best, cut=True)
            seconds = self._trial(one, cell)
            if seconds < fastest:
                best, fastest = one, seconds
        return best

    def _variants(self, one: Contender) -> list[Contender]:
        """Other ways to run sentence-transformers: vectors left on the device until the end, the other 16 bits."""
        if one.engine != PEER:
            return []
        left = replace(one, options={**one.options, "convert_to_tensor": True})
        # T5 overflows float16, and a CPU has no 16 bits of its own here
        return [left, replace(left, dtype="bfloat16")] if one.dtype == "float16" else [left]

    def _trial(self, one: Contender, cell: Cell) -> float:
        """Return the seconds of one turn, infinite where it fails or its vectors are off."""
        try:
            fault = agreement(self._run(one, cell.few)[0], cell.reference).fault
            seconds = inf if fault else self._run(one, cell.trial)[1]
        except ContenderError as error:
            fault, seconds = str(error), inf
        say(f"  tried {one.engine}, {one.settings}: {fault or f'{seconds:.2f} s'}")
        return seconds

    def _attempt(self, one: Contender, cell: Cell) -> Attempt:
        row = self.row(one, cell)
        attempt = Attempt(row, lambda: self._turn(row, one, cell))
        attempt.compare(lambda: self._run(one, cell.few)[0], cell.reference)
        if (engine := self._engines.get((one.engine, one.dtype))) is not None:
            row.settings = f"{engine.settings}{one.settings.removeprefix(one.dtype)}"
        return attempt

    def _turn(self, row: Row, one: Contender, cell: Cell) -> Turn:
        """Encode the whole cell; the vectors of the few texts must be right among all the others too."""
        vectors, seconds = self._run(one, cell.work)
        found = agreement(vectors[cell.rows], cell.reference)
        row.cosine, row.difference = min(row.cosine, found.cosine), max(row.difference, found.difference)
        if found.fault:
            raise ContenderError(f"among {len(vectors):,} texts {found.fault}")
        return Turn(encoding=seconds)

    def _take_turns(self, attempts: list[Attempt], share: Share) -> None:
        last = 0.0
        for number in range(self._options.rounds):
            if number and not share.allows(last):
                return
            began = share.spent
            for attempt in attempts:
                if not number and share.spent > LATE * share.seconds:
                    attempt.row.failed = attempt.row.failed or NO_TIME
                attempt.turn()
            last = share.spent - began

    def _run(self, one: Contender, work: Work) -> tuple[np.ndarray, float]:
        """Encode; return vectors on the host, and the seconds from handing over to the last of them."""
        with guarded():
            engine = self._engine(one)
            engine.take(work)
            gc.collect()
            began = time.perf_counter()
            vectors = engine.encode(one.source, **one.options)
            return vectors, time.perf_counter() - began

    def _engine(self, one: Contender) -> Engine:
        """Return an engine, loaded when it is first needed; what did not load is not tried again."""
        key = (one.engine, one.dtype)
        if key in self._broken:
            raise ContenderError(self._broken[key])
        if key not in self._engines:
            try:
                with guarded():
                    self._engines[key] = self._load(one)
            except ContenderError as error:
                self._broken[key] = str(error)
                raise
        return self._engines[key]

    def _load(self, one: Contender) -> Engine:
        if one.engine == OURS:
            return Embatch(self._spec, self._options.device)
        if one.engine == PLAIN:
            return Transformers(self._spec, self._options.device)
        return SentenceTransformers(self._model, self._options.device, one.dtype)


@contextmanager
def guarded() -> Iterator[None]:
    """Turn whatever an engine raises into a reason; one that fails must not end the run of the others."""
    try:
        yield
    except ContenderError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries and compilers of others, of any kind
        said = str(error).strip().partition("\n")[0][:200]
        failed = ContenderError(f"{type(error).__name__}: {said}")
    else:
        return
    _free()
    raise failed


def _free() -> None:
    """Give memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
