"""Contenders as processes: an engine in one or several that wait for their turn, or a whole command a turn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[3]
PEERS_PYTHON = ROOT / ".venv-bench/bin/python"
START_SECONDS, TURN_SECONDS = 180, 300
Vectors = np.ndarray


class ContenderError(Exception):
    """A contender cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One measurement; seconds of encoding and, of a command, from its start to its end and to the first encoding."""

    encoding: float
    whole: float | None = None
    startup: float | None = None
    rate: float | None = None


def environment(threads: int) -> dict[str, str]:
    """Pass the caller's environment on, with one thread a process where that was asked for."""
    kept = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if threads:
        kept |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        kept["TOKENIZERS_PARALLELISM"] = "false"
    return kept


def run(command: list[str], log: Path, threads: int = 0, seconds: float = TURN_SECONDS) -> str:
    """Run a command to its end; return what it printed.

    Raises:
        ContenderError: it cannot be started, fails or takes too long.
    """
    try:
        with log.open("w") as errors:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=seconds, env=environment(threads),
                check=False, cwd=ROOT,
            )  # fmt: skip
    except FileNotFoundError as error:
        raise ContenderError(f"not installed: no {Path(command[0]).relative_to(ROOT)}") from error
    except subprocess.TimeoutExpired as error:
        raise ContenderError(f"took more than {seconds:.0f} s") from error
    if done.returncode:
        raise ContenderError(reason(log))
    return done.stdout


def reason(log: Path) -> str:
    """The last line a failed process wrote to stderr."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it ended without a word"


class Engine:
    """Processes of one engine that share the texts; `start` once, then `take` a cell, `check` and `encode` it."""

    def __init__(self, kind: str, setup: dict[str, Any], processes: int, python: Path, log: Path) -> None:
        self._command = [str(python), "-m", "benchmarks.speed.worker", kind, json.dumps(setup)]
        self._threads, self._wanted, self._log = int(setup["threads"]), processes, log
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Load the engine.

        Raises:
            ContenderError: it does not load.
        """
        try:
            for part in range(self._wanted):
                with self._part_log(part).open("w") as errors:
                    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
                    self._processes.append(
                        subprocess.Popen(
                            self._command, text=True, bufsize=1, env=environment(self._threads), cwd=ROOT, **pipes
                        )
                    )
        except FileNotFoundError as error:
            raise ContenderError(f"not installed: no {Path(self._command[0]).relative_to(ROOT)}") from error
        self._answers(START_SECONDS)

    def take(self, path: Path) -> None:
        """Give each process its share of a cell's texts."""
        for part, process in enumerate(self._processes):
            _send(process, {"do": "take", "path": str(path), "part": part, "parts": self._wanted})
        self._answers(TURN_SECONDS)

    def check(self, rows: list[int], options: dict[str, Any]) -> Vectors:
        """Encode a few rows in every process, which also warms them up; return the vectors of the first."""
        with tempfile.TemporaryDirectory() as folder:
            for part, process in enumerate(self._processes):
                _send(process, {"do": "check", "rows": rows, "into": f"{folder}/{part}.npy", "options": options})
            self._answers(TURN_SECONDS)
            return np.load(f"{folder}/0.npy").astype(np.float32)

    def encode(self, options: dict[str, Any]) -> Turn:
        """Encode the whole cell; from the request to the last process's answer."""
        began = time.perf_counter()
        for process in self._processes:
            _send(process, {"do": "encode", "options": options})
        self._answers(TURN_SECONDS)
        return Turn(encoding=time.perf_counter() - began)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()
        self._processes = []

    def _answers(self, seconds: float) -> None:
        timer = threading.Timer(seconds, lambda: [process.kill() for process in self._processes])
        timer.start()
        try:
            for part, process in enumerate(self._processes):
                if not process.stdout.readline():
                    late = "" if timer.is_alive() else f"no answer within {seconds:.0f} s; "
                    process.wait()
                    raise ContenderError(late + reason(self._part_log(part)))
        finally:
            timer.cancel()

    def _part_log(self, part: int) -> Path:
        return self._log.with_name(f"{self._log.name}-{part}.log")


def _send(process: subprocess.Popen[str], request: dict[str, Any]) -> None:
    try:
        process.stdin.write(json.dumps(request) + "\n")
    except BrokenPipeError:
        return  # it is gone, and its missing answer tells why


class Command:
    """A program that reads Parquet and writes Parquet, started anew each turn."""

    def __init__(
        self,
        argv: list[str],
        work: Path,
        timing: Callable[[dict[str, Any], float], Turn],
        seconds: float = TURN_SECONDS,
    ) -> None:
        self._argv, self._work, self._timing, self._seconds = argv, work, timing, seconds

    def encode(self) -> Turn:
        """Run it from its start to its end."""
        output = self._work / "out"
        shutil.rmtree(output, ignore_errors=True)
        places = {"INPUT": str(self._work / "in"), "OUTPUT": str(output)}
        began = time.perf_counter()
        printed = run(
            [places.get(part, part) for part in self._argv], self._work / "command.log", seconds=self._seconds
        )
        whole = time.perf_counter() - began
        return self._timing(json.loads(printed.splitlines()[-1]), whole)

    def vectors(self, rows: list[int]) -> Vectors:
        """Read rows of the last turn's output, which may be in any order."""
        files = [pq.ParquetFile(path) for path in sorted((self._work / "out").rglob("*.parquet"))]
        shards = [file.read(columns=["id", "embedding"]) for file in files if "embedding" in file.schema_arrow.names]
        if not shards:
            raise ContenderError("it wrote no embeddings")
        found = pa.concat_tables(shards)
        place = {int(name): row for row, name in enumerate(found["id"].to_pylist())}
        if len(place) != len(found):
            raise ContenderError(f"{len(found)} rows for {len(place)} ids")
        chosen = found["embedding"].take([place[row] for row in rows])
        return np.array(chosen.to_pylist(), np.float32)


def report_timing(report: dict[str, Any], whole: float) -> Turn:
    """Read the report of `embatch run --json`."""
    run_ = report["this_run"]
    return Turn(
        encoding=run_["encoding_seconds"],
        whole=whole,
        startup=run_["startup_seconds"],
        rate=run_["steady_tokens_per_s"],
    )


def script_timing(printed: dict[str, Any], whole: float) -> Turn:
    """Read what a script of `scripts/` prints."""
    encoding = printed["encoding_seconds"]
    return Turn(encoding=encoding, whole=whole, startup=whole - encoding)


def write_input(texts: list[str], folder: Path, files: int = 4) -> None:
    """Write Parquet files with the row's number as `id`, and its `text`."""
    folder.mkdir(parents=True)
    for part in range(files):
        rows = range(part * len(texts) // files, (part + 1) * len(texts) // files)
        table = pa.table({"id": [str(row) for row in rows], "text": [texts[row] for row in rows]})
        pq.write_table(table, folder / f"part-{part}.parquet")


def embatch_argv(model: str) -> list[str]:
    """The command itself."""
    uris = ["--input", "INPUT", "--output", "OUTPUT", "--model", model, "--set", "input.id=id", "--json"]
    return [sys.executable, "-m", "jobs.cli", "run", *uris]


def script_argv(name: str, folder: Path, python: str | Path = sys.executable) -> list[str]:
    """A program of `scripts/`."""
    return [str(python), "-m", f"benchmarks.speed.scripts.{name}", "INPUT", "OUTPUT", str(folder)]
