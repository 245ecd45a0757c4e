"""Kill the whole process group at random moments, rerun, and compare: `python tests/benchmarks/kills.py DATA`.

60,000 passages of DATA/msdocs in six files, 2,048 rows a unit, the true MiniLM weights. One run is left alone; the
other is killed with SIGKILL five times. Shows that the digests are equal, that `verify` finds nothing, and that no
committed unit was encoded again.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

PASSAGES, FILES, UNIT_ROWS, KILLS = 60_000, 6, 2048, 5


def prepare(data: Path, folder: Path) -> None:
    """Write the passages to plain and gzipped JSON Lines."""
    folder.mkdir()
    with gzip.open(data / "msdocs/corpus.jsonl.gz", "rt") as file:
        lines = list(islice(file, PASSAGES))
    for number in range(FILES):
        text = "".join(lines[number * len(lines) // FILES : (number + 1) * len(lines) // FILES]).encode()
        if number % 2:
            (folder / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))
        else:
            (folder / f"part-{number}.jsonl").write_bytes(text)


def start(work: Path, output: Path, log: Path | None = None) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    uris = ["--input", str(work / "in"), "--output", str(output), "--model", "packaged:all-MiniLM-L6-v2"]
    keys = ["--set", "input.id=_id", "--set", f"output.unit_rows={UNIT_ROWS}", "--json"]
    environment = {**os.environ, "EMBATCH_FAILPOINTS": f"encode.start:append={log}"} if log else dict(os.environ)
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "run", *uris, *keys],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )


def committed(output: Path) -> set[int]:
    """Units whose shard is there."""
    return {int(path.name[5:13]) for path in (output / "data").glob("*.parquet")}


def encoded(log: Path) -> list[int]:
    """Units whose encoding began, in order."""
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def main() -> None:
    """Print what happened."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(Path(sys.argv[1]), work / "in")
        began = time.monotonic()
        undisturbed = json.loads(start(work, work / "undisturbed").communicate()[0])
        whole = time.monotonic() - began
        print(f"undisturbed: {whole:.0f} s, digest {undisturbed['content_digest']}", flush=True)
        output, log, chance = work / "killed", work / "encoded.log", random.Random(int(time.time()))
        twice = 0
        for number in range(KILLS):
            before, seen = committed(output), len(encoded(log))
            run = start(work, output, log)
            moment = chance.uniform(0.08, 0.35) * whole
            time.sleep(moment)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            twice += len(before & set(encoded(log)[seen:]))
            print(f"kill {number + 1} after {moment:.0f} s: {len(committed(output))} units committed", flush=True)
            time.sleep(3)  # Ray's own processes notice that their driver is gone
        before, seen = committed(output), len(encoded(log))
        final = json.loads(start(work, output, log).communicate()[0])
        twice += len(before & set(encoded(log)[seen:]))
        print(f"resumed: exit {final['exit_code']}, digest {final['content_digest']}")
        print(f"units of the last run: {final['this_run']['units']}")
        verified = subprocess.run([sys.executable, "-m", "jobs.cli", "verify", str(output)], check=False)
        print(f"digests equal: {final['content_digest'] == undisturbed['content_digest']}")
        print(f"committed units encoded again: {twice}")
        print(f"encodings begun: {len(encoded(log))} for {len(committed(output))} units")
        print(f"verify: exit {verified.returncode}")


if __name__ == "__main__":
    main()
