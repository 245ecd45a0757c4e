"""The measurement: for each model and mix all contenders are checked, then take turns, round after round."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from benchmarks.speed import contenders, lineup, models, processes
from benchmarks.speed.attempts import CHECKED, Attempt, Row, say
from benchmarks.speed.contenders import CommandContender, EngineContender
from benchmarks.speed.mixes import LEAST_GROUPS, Cell, Mixes
from benchmarks.speed.models import Counter, Model
from benchmarks.speed.processes import Command, ContenderError, Engine

GUESS = 0.5
"""Share of the float32 peak by which cells are sized."""
TRIAL = 0.4
"""Size of the cell that chooses sentence-transformers' best settings, against a usual one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run, and how long a contender's turn should about be."""

    models: list[str]
    mixes: list[str]
    rounds: int
    seconds: float
    data: Path
    bf16: bool
    peak: float


class Bench:
    """One run in a folder of its own."""

    def __init__(self, options: Options, work: Path) -> None:
        self._options, self._work = options, work
        self._mixes = Mixes(options.data)
        self._unfit: dict[tuple[str, str], str] = {}
        self.rows: list[Row] = []

    def run(self) -> None:
        """Measure all models."""
        self._prepare()
        for key in self._options.models:
            model = models.find(key, self._work)
            with _Contest(model, self._options, self._work, self._unfit) as contest:
                for mix in lineup.mixes_of(key, self._options.mixes):
                    self.rows += contest.measure(mix, self._mixes)

    def _prepare(self) -> None:
        """Write the models and convert them, before anything is timed."""
        made = [key for key in self._options.models if key in models.ARCHITECTURES]
        if made:
            command = [sys.executable, "-m", "benchmarks.speed.models", str(self._work), *made]
            processes.run(command, self._work / "models.log")
        wanted = [(key, kind) for key in self._options.models for kind in lineup.graphs(key)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: self._convert(*pair), wanted))

    def _convert(self, key: str, kind: str) -> None:
        folder, target = models.find(key, self._work).folder, graph_path(self._work, key, kind)
        command = [str(processes.PEERS_PYTHON), "-m", "benchmarks.speed.exports", kind, str(folder), str(target)]
        try:
            processes.run(command, self._work / f"{key}-{kind}.log", threads=1)
        except ContenderError as error:
            self._unfit[key, kind] = str(error)


class _Contest:
    """One model: its engines stay loaded over all mixes."""

    def __init__(self, model: Model, options: Options, work: Path, unfit: dict[tuple[str, str], str]) -> None:
        self._model, self._options, self._work, self._unfit = model, options, work, unfit
        self._counter = Counter(model)
        self._engines: dict[tuple[str, str, int, int], Engine] = {}
        self._broken: dict[tuple[str, str, int, int], str] = {}
        self._best: EngineContender | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def measure(self, mix: str, mixes: Mixes) -> list[Row]:
        """Check all contenders of a mix, then let them take turns."""
        cell = self._cell(mix, mixes, lineup.SIZES.get(mix, 1))
        if self._best is None or lineup.is_full(self._model.key, mix):
            self._best = self._choose(self._cell(mix, mixes, TRIAL))
        checked = np.linspace(0, cell.texts - 1, min(CHECKED, cell.texts)).astype(int).tolist()
        reference = self._vectors(contenders.DEFAULTS, cell, checked).astype(np.float64)
        competing = lineup.engines(self._model.key, mix, self._best, bf16=self._options.bf16)
        programs = [(one, self._command(one, cell)) for one in lineup.commands(mix)]
        attempts = [Attempt(self._row(one, cell, None), command.encode) for one, command in programs]
        for one in competing:
            attempt = Attempt(self._row(one, cell, one.dtype), lambda one=one: self._engine(one).encode(one.options))
            attempt.compare(lambda one=one: self._vectors(one, cell, checked), reference)
            attempts.append(attempt)
        for number in range(self._options.rounds):
            for attempt in attempts:
                attempt.turn()
            if number == 0:
                for attempt, (_, command) in zip(attempts, programs, strict=False):
                    attempt.compare(lambda command=command: command.vectors(checked), reference)
        return [attempt.row for attempt in attempts]

    def _choose(self, cell: Cell) -> EngineContender:
        """Return the fastest settings of sentence-transformers on a short cell."""
        candidates = contenders.best_of(lineup.dtypes(bf16=self._options.bf16))
        times = {}
        for number, one in enumerate(candidates):
            try:
                self._vectors(one, cell, list(range(min(CHECKED, cell.texts))))
                times[number] = self._engine(one).encode(one.options).encoding
            except ContenderError as error:
                say(f"{one.settings}: {error}")
        if not times:
            raise ContenderError("sentence-transformers, the reference, does not run")
        return candidates[min(times, key=lambda number: times[number])]

    def _cell(self, mix: str, mixes: Mixes, size: float) -> Cell:
        tokens = self._options.seconds * size * GUESS * self._options.peak / self._counter.flops_per_token
        kind = "short" if mix == lineup.END_TO_END else mix
        least = LEAST_GROUPS if size >= 1 else 1
        found = mixes.cell(self._model.key, kind, self._counter, int(tokens), self._work, least)
        cell = replace(found, mix=mix)
        say(f"{cell.model}, {mix}: {cell.texts:,} texts, {cell.tokens:,} tokens")
        return cell

    def _row(self, one: EngineContender | CommandContender, cell: Cell, dtype: str | None) -> Row:
        sizes = {"texts": cell.texts, "tokens": cell.tokens, "flops": cell.flops}
        return Row(model=cell.model, mix=cell.mix, label=one.label, settings=one.settings, dtype=dtype, **sizes)

    def _vectors(self, one: EngineContender, cell: Cell, rows: list[int]) -> np.ndarray:
        engine = self._engine(one)
        engine.take(cell.path)
        return engine.check(rows, one.options)

    def _engine(self, one: EngineContender) -> Engine:
        """Return the contender's processes, started when they are first needed."""
        if one.group in self._broken:
            raise ContenderError(self._broken[one.group])
        if one.group not in self._engines:
            engine = self._engines[one.group] = self._new_engine(one)
            try:
                engine.start()
            except ContenderError as error:
                self._broken[one.group] = str(error)
                raise
        return self._engines[one.group]

    def _new_engine(self, one: EngineContender) -> Engine:
        key = self._model.key
        if (key, one.graph) in self._unfit:
            self._broken[one.group] = f"conversion: {self._unfit[key, one.graph]}"
            raise ContenderError(self._broken[one.group])
        setup = {
            "name": self._model.name,
            "folder": str(self._model.folder),
            "prompt": self._model.prompt,
            "dtype": one.dtype,
            "threads": one.threads,
            "graph": str(graph_path(self._work, key, one.graph)) if one.graph else "",
        }
        python = processes.PEERS_PYTHON if one.peers else Path(sys.executable)
        log = self._work / "-".join(map(str, (key, *one.group)))
        return Engine(one.kind, setup, one.processes or os.cpu_count() or 1, python, log)

    def _command(self, one: CommandContender, cell: Cell) -> Command:
        work = self._work / "commands" / one.label.replace(" ", "-")
        processes.write_input(json.loads(cell.path.read_text()), work / "in")
        if one.script is None:
            return Command(processes.embatch_argv(self._model.name), work, processes.report_timing)
        python = processes.PEERS_PYTHON if one.peers else sys.executable
        argv = processes.script_argv(one.script, self._model.folder, python)
        return Command(argv, work, processes.script_timing)


def graph_path(work: Path, key: str, kind: str) -> Path:
    """Where a converted model is kept."""
    return work / f"{key}.{'xml' if kind == 'openvino' else 'onnx'}"


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values."""
    return [asdict(row) for row in rows]
