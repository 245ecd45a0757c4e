"""`make bench-gpu`: measures one GPU, and writes docs/benchmarks/gpu.json and gpu.md.

Needs torch with its Triton, transformers, sentence-transformers, pyarrow and what these bring along, gcc or clang, and
pydantic; no network, no Ray, and embatch itself only as a checkout. A machine that has all but pydantic needs four
wheels: pydantic, the pydantic-core of its version, annotated-types and typing-inspection. Without Ray and stamina the
whole command is left out, and the table says so. With `--device cpu` it is a smoke run, printed and written only where
`--output` says.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAMES = ("gte-base", "gte-small", "gte-large", "instructor-large", "mpnet-base")
TINY = ("tiny", "tiny-instructor")
MIXES = ("128", "512", "mixed", "end to end")
QUICK = {"models": ["gte-small"], "mixes": ["128", "mixed"], "rounds": 1, "seconds": 0.1, "budget": 90.0}
USUAL = {"models": list(NAMES), "mixes": list(MIXES), "rounds": 5, "seconds": 0.5, "budget": 480.0}
ROOT = Path(__file__).parents[3]


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench-gpu ARGS=", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=[*NAMES, *TINY], help="in order of their turns")
    parser.add_argument("--mixes", nargs="+", choices=MIXES)
    parser.add_argument("--rounds", type=int, help="turns a contender takes on a cell at most")
    parser.add_argument("--seconds", type=float, help="about what embatch's encoder takes a turn, at most")
    parser.add_argument("--budget", type=float, help="seconds for everything; late cells are shortened or left out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path, default=ROOT / "jobs/demo/corpus", help="folder with passages")
    parser.add_argument("--output", type=Path, help="where the results go; docs/benchmarks for a GPU")
    parser.add_argument("--quick", action="store_true", help="a smoke run: gte-small, little of everything")
    options = parser.parse_args(argv)
    for name, value in (QUICK if options.quick else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.device == "cuda" and options.output is None:
        options.output = ROOT / "docs/benchmarks"
    return options


def main() -> None:
    """Measure and write."""
    asked, began = parse(sys.argv[1:]), time.monotonic()
    # before a library reads them; a preparer would else leave its one thread to the peers as well
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    from pipeline.encoders import precision
    from pipeline.exceptions import ModelError

    try:
        detected = precision.detect(asked.device)
    except ModelError as error:
        sys.exit(f"{error}\n--device cpu --quick is a smoke run")
    import torch
    import transformers
    from benchmarks.gpu import limits, table
    from benchmarks.gpu.bench import Bench, lineup
    from benchmarks.gpu.budget import Budget
    from benchmarks.gpu.contest import Options
    from benchmarks.speed import machine

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device, dtypes = torch.device(detected.kind), limits.dtypes_of(detected)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["PYTHONPATH=tests", "python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "smoke": " ".join(name for name, given in (("CPU", asked.device == "cpu"), ("--quick", asked.quick)) if given),
        "machine": machine.describe(),
        "device": limits.describe(device),
        "under_load": limits.under_load(device, dtypes[0]),
        "limits": limits.measure(device, dtypes),
        "rounds": asked.rounds,
        "budget": asked.budget,
    }
    names = {name: getattr(asked, name) for name in ("device", "seconds", "rounds", "data")}
    options = Options(peak=found["limits"]["flops_per_s"], **names)
    with tempfile.TemporaryDirectory(prefix="embatch-bench-") as work:
        bench = Bench(options, Budget(asked.budget - (time.monotonic() - began)), Path(work))

        def keep() -> None:
            """Write what there is after each part, so that a run that is killed leaves it."""
            found.update(seconds=round(time.monotonic() - began), rows=[asdict(row) for row in bench.rows])
            found.update(left_out=bench.left_out, profile=bench.profile)
            if asked.output is not None:
                asked.output.mkdir(parents=True, exist_ok=True)
                (asked.output / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
                (asked.output / "gpu.md").write_text(table.page(found))

        keep()
        bench.run(lineup(asked.models, asked.mixes), keep)
    print(table.page(found))


if __name__ == "__main__":
    main()
