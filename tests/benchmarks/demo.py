"""The demo job beside a plain sentence-transformers loop on the same texts: `make bench-demo`.

Each side runs as a user would start it, in a process of its own, in turn, three times; medians are printed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 3
LOOP = """
import json, sys, time
import pyarrow.dataset as ds
from pipeline.corpus import CorpusFiles, READERS, RowRule
from pipeline.corpus.reader import CutLimits
from pipeline.corpus.rows import Collector
from pipeline.config import InputConfig
from pipeline.encoders.model_files import locate
files = CorpusFiles("jobs/demo/corpus/")
collect = Collector(RowRule(InputConfig(uri="jobs/demo/corpus/")), {})
for source in files.discover().sources:
    reader = READERS[source.format]
    slices = reader.inspect(files, source, CutLimits(rows=10**9, size_bytes=10**12)).slices
    list(reader.read(files, iter(slices), collect))
texts = collect.take().texts
from sentence_transformers import SentenceTransformer
started = time.perf_counter()
model = SentenceTransformer(str(locate("packaged:all-MiniLM-L6-v2", None).path), device="cpu")
loaded = time.perf_counter()
vectors = model.encode(texts, normalize_embeddings=True)
done = time.perf_counter()
print(json.dumps({"rows": len(vectors), "encode": done - loaded, "load": loaded - started}))
"""


def run_embatch() -> dict[str, float]:
    """The whole command: plan, start Ray, encode, commit, audit."""
    output = Path("demo-output-bench")
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "jobs.cli", "run", "jobs/demo/job.yaml", "--output", str(output), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    report = json.loads(done.stdout)["this_run"]
    shutil.rmtree(output)
    return {"wall": wall, "encode": report["encoding_seconds"], "rows": report["rows"]}


def run_loop() -> dict[str, float]:
    """The loop most people start with: load, encode, keep in memory."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True)
    return {"wall": time.perf_counter() - started, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Print one line a side and the ratios."""
    sides = {"embatch": run_embatch, "sentence-transformers loop": run_loop}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            results[name].append(side())
    medians = {
        name: {key: statistics.median(result[key] for result in found) for key in ("wall", "encode", "rows")}
        for name, found in results.items()
    }
    for name, median in medians.items():
        rate = median["rows"] / median["wall"]
        print(
            f"{name:28} {median['rows']:,.0f} rows, {median['wall']:6.1f} s in all ({rate:,.0f} rows/s), "
            f"{median['encode']:6.1f} s from first actor start to last receipt / in encode()"
        )
    ours, theirs = medians["embatch"], medians["sentence-transformers loop"]
    print(f"ratio of whole commands: {theirs['wall'] / ours['wall']:.2f}")
    print(f"ratio of encoding: {theirs['encode'] / ours['encode']:.2f}")


if __name__ == "__main__":
    main()
