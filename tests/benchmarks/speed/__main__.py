"""`make bench`: measures, and writes docs/benchmarks/speed.json, speed.md and speed.svg."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.speed import lineup, machine, models, peak, table
from benchmarks.speed.processes import PEERS_PYTHON, ROOT, environment
from benchmarks.speed.runner import Bench, Options, as_json

from pipeline.encoders import precision

QUICK = {"models": ["minilm"], "mixes": ["short", lineup.END_TO_END], "rounds": 1, "seconds": 0.3}


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=models.NAMES, default=list(models.NAMES))
    parser.add_argument("--mixes", nargs="+", choices=lineup.MIXES, default=list(lineup.MIXES))
    parser.add_argument("--rounds", type=int, default=2, help="turns a contender takes on a cell")
    parser.add_argument("--seconds", type=float, default=2.5, help="about what a fast contender takes a turn")
    parser.add_argument("--data", type=Path, default=ROOT / "jobs/demo/corpus", help="folder with passages")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks", help="where the results go")
    parser.add_argument("--keep", action="store_true", help="keep cells of the last run that are not measured now")
    parser.add_argument("--quick", action="store_true", help="a smoke run: MiniLM, short texts, little of everything")
    options = parser.parse_args(argv)
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> None:
    """Measure and write."""
    asked, began = parse(sys.argv[1:]), time.monotonic()
    bf16 = precision.detect("cpu").bf16
    described = machine.describe()
    described["versions"] |= machine.peers()
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["make", "bench"] + ([f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])),
        "machine": described,
        "rounds": asked.rounds,
        "quick": asked.quick,
        "peak": peak.measure(lineup.dtypes(bf16=bf16), os.cpu_count() or 1),
    }
    names = ("models", "mixes", "rounds", "seconds", "data")
    options = Options(bf16=bf16, peak=found["peak"]["float32"], **{name: getattr(asked, name) for name in names})
    with tempfile.TemporaryDirectory(prefix="embatch-bench-") as work:
        bench = Bench(options, Path(work))
        bench.run()
    found |= {"seconds": round(time.monotonic() - began), "rows": as_json(bench.rows), "kept": []}
    if asked.keep:
        keep(found, json.loads((asked.output / "speed.json").read_text()))
    write(found, asked.output)


def keep(found: dict[str, Any], last: dict[str, Any]) -> None:
    """Take over the cells of the last run that this one has not measured; the page says where they come from.

    The peak of a machine is the highest that any run saw.
    """
    measured = {_cell(row) for row in found["rows"]}
    kept = [row for row in last["rows"] if _cell(row) not in measured]
    older = [{**one, "cells": [cell for cell in one["cells"] if cell not in measured]} for one in last["kept"]]
    origin = {key: last[key] for key in ("date", "command", "seconds")} | {"commit": last["machine"]["commit"]}
    named = {cell for one in older for cell in one["cells"]}
    origin["cells"] = list(dict.fromkeys(_cell(row) for row in kept if _cell(row) not in named))
    found["rows"] = kept + found["rows"]
    found["kept"] = [one for one in (*older, origin) if one["cells"]]
    found["peak"] = {dtype: max(rate, last["peak"].get(dtype, 0)) for dtype, rate in found["peak"].items()}


def _cell(row: dict[str, Any]) -> str:
    return f"{row['model']}, {row['mix']}"


def write(found: dict[str, object], output: Path) -> None:
    """Write the results three times: to keep, to read, to look at."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "speed.json").write_text(json.dumps(found, indent=1) + "\n")
    page = table.page(found)
    (output / "speed.md").write_text(page)
    print(page)
    plot = [str(PEERS_PYTHON), "-m", "benchmarks.speed.plot", str(output / "speed.json"), str(output / "speed.svg")]
    if not PEERS_PYTHON.exists() or subprocess.run(plot, env=environment(0), check=False, cwd=ROOT).returncode:
        print("no plot: matplotlib is not in .venv-bench", file=sys.stderr)


if __name__ == "__main__":
    main()
