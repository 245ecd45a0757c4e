"""The whole command on the device, where Ray is installed: read, tokenize, encode, commit."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.contest import Cell
from benchmarks.speed import processes
from benchmarks.speed.attempts import Attempt, Row
from benchmarks.speed.models import Model
from benchmarks.speed.processes import Command, ContenderError, Turn

LABEL = "embatch run, from files"
NEEDED = ("ray", "typer", "rich", "stamina")
STEADY_SECONDS = 25.0
"""About how long the encoder is busy: some units, so that start and end weigh little."""
STEADY = 1 / 3
"""The same as a part of the time there is: Ray starts, the model is loaded, the output is read back."""
FILES = 16


def missing() -> list[str]:
    """Return the packages that the command needs and this environment lacks."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def measure(empty: Row, cell: Cell, model: Model, device: str, work: Path, rate: float, seconds: float) -> Row:
    """Run the command once on a cell's texts, as often over as the encoder's `rate` and the time ask for."""
    os.environ.pop("TOKENIZERS_PARALLELISM", None)  # each task of the command has one thread
    times = max(round(rate * min(STEADY_SECONDS, seconds * STEADY) / empty.tokens), 1)
    sizes = {"texts": empty.texts * times, "tokens": empty.tokens * times, "flops": empty.flops * times}
    row = replace(empty, label=LABEL, settings="embatch run --json, one local Ray, rate after start-up", **sizes)
    processes.write_input(cell.work.texts * times, work / "in", files=FILES)
    argv = [*processes.embatch_argv(model.name), "--set", f"cluster.device={device}"]
    command = Command(argv, work, processes.report_timing, seconds=seconds)

    def turn() -> Turn:
        taken = command.encode()
        if not taken.rate:
            raise ContenderError("it ended with its first batch: too short a run for a rate")
        return taken

    attempt = Attempt(row, turn)
    attempt.turn()
    attempt.compare(lambda: command.vectors(cell.rows), cell.reference)
    return row
