"""Resident memory of driver and workers over corpus size: `python tests/benchmarks/memory.py [ROWS …]`.

Runs the command with the hashing encoder on generated JSON Lines and samples its process tree twice a second.
Peaks are of anonymous memory (heap); the object store's shared pages are counted apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

SIZES = (10_000, 100_000, 1_000_000)
FILES = 8
UNIT_ROWS = 4096
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sphinx", "of", "quartz")
KINDS = {"EncodeAndCommit": "encode actor", "read_units": "read task", "IDLE": "read task", "jobs.cli": "driver"}


def generate(folder: Path, rows: int) -> None:
    """Write rows of 30 to 270 characters to several files."""
    folder.mkdir(parents=True)
    for number in range(FILES):
        with (folder / f"part-{number}.jsonl").open("w") as file:
            for row in range(number, rows, FILES):
                text = " ".join(WORDS[(row + step) % len(WORDS)] for step in range(5 + row % 50))
                file.write(json.dumps({"id": row, "text": f"{row} {text}"}) + "\n")


def tree(root: int) -> list[int]:
    """Process ids below and including one; Ray starts its own in the same session."""
    children = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(status.parent.name))
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children[process]
    return found


def sample(root: int) -> dict[str, list[int]]:
    """Anonymous and shared resident bytes by kind of process."""
    memory: dict[str, list[int]] = defaultdict(list)
    for process in tree(root):
        try:
            name = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        except OSError:
            continue
        kind = next((label for part, label in KINDS.items() if part in name), None)
        if kind and "RssAnon" in status:
            memory[kind].append(int(status["RssAnon"].split()[0]) << 10)
        if "RssShmem" in status:
            memory["object store pages"].append(int(status["RssShmem"].split()[0]) << 10)
    return memory


def measure(rows: int, work: Path) -> tuple[dict[str, int], dict[str, object]]:
    """Run one size; return peaks by kind and the run's report."""
    generate(work / "in", rows)
    settings = ["--set", f"output.unit_rows={UNIT_ROWS}", "--json"]
    uris = ["--input", str(work / "in"), "--output", str(work / "out"), "--model", "hashing:256"]
    command = [sys.executable, "-m", "jobs.cli", "run", *uris, *settings]
    peaks: dict[str, int] = defaultdict(int)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            for kind, values in sample(process.pid).items():
                peaks[kind] = max([peaks[kind], *values])
            time.sleep(0.5)
        report = json.loads(process.stdout.read())
    return peaks, report["this_run"]


def main() -> None:
    """Print one line a size."""
    for rows in [int(argument) for argument in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            peaks, run = measure(rows, Path(folder))
        shown = ", ".join(f"{kind} {size / 2**20:,.0f} MiB" for kind, size in sorted(peaks.items()))
        print(f"{rows:>9,} rows, {run['units']} units, {run['rows_per_s']:,.0f} rows/s: {shown}", flush=True)


if __name__ == "__main__":
    main()
