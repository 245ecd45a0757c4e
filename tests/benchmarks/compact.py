"""Compact vectors beside float32 on SciFact: nDCG@10, recall@10 against the float search, and bytes on disk.

`python tests/benchmarks/compact.py DATA WORK`, where DATA holds SciFact/ as MTEB has it and msdocs/. Prints the cost of
counting scripts, then runs the command once for each `output.vectors`, MiniLM in float32, into WORK; an output that is
complete there is taken as it is.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from quality import MODEL, relevance
from sklearn.metrics import ndcg_score

from pipeline import load_encoder, read_embeddings
from pipeline.calibration import calibrate
from pipeline.corpus.scripts import script_codes
from pipeline.encoders.registry import build_preparer

KINDS = ("float32", "int8", "binary")
CANDIDATES = 100
ROUNDS = 5
CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувшхыз")


def embed(folder: Path, output: Path, kind: str) -> dict[str, Any]:
    """Run the command on the documents, unless that was done; return its report."""
    if not (output / "_job/manifest.json").exists():
        keys = {"input.id": "_id", "input.text": "'{title} {text}'", "encoder.dtype": "float32", "output.vectors": kind}
        settings = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
        command = ["--input", str(folder / "corpus.jsonl.gz"), "--output", str(output), "--model", MODEL, *settings]
        subprocess.run([sys.executable, "-m", "jobs.cli", "run", *command], check=True, capture_output=True)
    report: dict[str, Any] = json.loads((output / "_job/report.json").read_text())
    return report


def stored(output: Path, *, decode: bool) -> np.ndarray:
    """The vectors of an output, as they are stored or as they decode, [rows, any]."""
    tables = read_embeddings(str(output), ["embedding"], decode=decode)
    column = pa.concat_tables(tables)["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def hamming(queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Equal signs of each query and document, int64 [queries, documents]."""
    asked = np.packbits(queries > 0, axis=1)
    different = [np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.int64) for query in asked]
    return queries.shape[1] - np.stack(different)


def rescored(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Scores of a second search among the candidates of a first one, all others below."""
    candidates = np.argsort(-first, axis=1, kind="stable")[:, :CANDIDATES]
    scores = np.full(second.shape, -1e9)
    np.put_along_axis(scores, candidates, np.take_along_axis(second, candidates, axis=1), axis=1)
    return scores


def recall(true: np.ndarray, found: np.ndarray) -> float:
    """Share of the ten best by `true` that are among the ten best by `found`."""
    best = [np.argsort(-scores, axis=1, kind="stable")[:, :10] for scores in (true, found)]
    return float((best[0][:, :, None] == best[1][:, None, :]).sum() / best[0].size)


def search(folder: Path, work: Path) -> None:
    """Print one line a way to search."""
    reports = {kind: embed(folder, work / kind, kind) for kind in KINDS}
    with gzip.open(folder / "queries.jsonl.gz", "rt") as file:
        asked = [json.loads(line) for line in file]
    queries = load_encoder(MODEL, dtype="float32").encode([query["text"] for query in asked])
    ids = pa.concat_tables(read_embeddings(str(work / "float32"), ["id"]))["id"].to_pylist()
    judged = relevance(folder, [query["_id"] for query in asked], ids)
    scores = {kind: queries @ stored(work / kind, decode=True).T for kind in KINDS}
    signs = hamming(queries, stored(work / "binary", decode=False))
    ways = {
        **{kind: (kind, scores[kind]) for kind in ("float32", "int8")},
        "binary": ("binary", signs),
        f"binary, {CANDIDATES} rescored by the signs": ("binary", rescored(signs, scores["binary"])),
        f"binary, {CANDIDATES} rescored by int8": ("int8", rescored(signs, scores["int8"])),
    }
    for name, (kind, found) in ways.items():
        size = sum(path.stat().st_size for path in (work / kind / "data").iterdir())
        told = reports[kind]["vectors"]
        ndcg, near = 100 * ndcg_score(judged, found, k=10), recall(scores["float32"], found)
        print(
            f"{name}: nDCG@10 {ndcg:.2f}, recall@10 {near:.4f}"
            f", {told['bytes_a_row']} bytes a row, data/ {size:,} bytes, the report: recall@10 {told['recall_at_10']}"
            f" on {told['sample']}, clipped share {told['clipped_share']}",
            flush=True,
        )
    by_sample(stored(work / "float32", decode=True), queries, judged)


def by_sample(floats: np.ndarray, queries: np.ndarray, judged: np.ndarray) -> None:
    """Print one line a size of the sample, for codes made here from the float32 vectors."""
    for kind, rows in (("int8", 648), ("int8", 4096), ("float16", 648)):
        places = np.linspace(0, len(floats) - 1, rows).round().astype(int)
        rule = calibrate("", kind, floats.shape[1], [floats[places]])
        codes, clipped = rule.encode(floats)
        found = queries @ rule.decode(codes).T
        ndcg, near = 100 * ndcg_score(judged, found, k=10), recall(queries @ floats.T, found)
        share = clipped.sum() / floats.size
        print(f"{kind}, a sample of {rows}: nDCG@10 {ndcg:.2f}, recall@10 {near:.4f}, clipped share {share:.6f}")


def scripts(name: str, texts: list[str]) -> None:
    """Print what counting scripts costs beside tokenizing the same texts, the best of some rounds."""
    preparer = build_preparer(load_encoder(MODEL, dtype="float32").spec)
    counting, tokenizing = (min(_seconds(do, texts) for _ in range(ROUNDS)) for do in (script_codes, preparer.prepare))
    odd = sum(not text.isascii() for text in texts) / len(texts)
    print(
        f"{name}: {odd:.0%} of {len(texts)} texts are not ASCII; scripts cost {counting / tokenizing:.2%} of tokenizing"
    )


def _seconds(do: Callable[[list[str]], object], texts: list[str]) -> float:
    started = time.process_time()
    do(texts)
    return time.process_time() - started


def main() -> None:
    """Print all measures."""
    data, work = map(Path, sys.argv[1:])
    texts = {}
    for name in ("SciFact", "msdocs"):
        with gzip.open(data / name / "corpus.jsonl.gz", "rt") as file:
            texts[name] = [json.loads(line)["text"] for line in islice(file, 4000)]
    texts["SciFact, 60 characters"] = [text[:60] for text in texts["SciFact"]]
    texts["the same in Cyrillic"] = [text.lower().translate(CYRILLIC) for text in texts["SciFact, 60 characters"]]
    for name, several in texts.items():
        scripts(name, several)
    search(data / "SciFact", work)


if __name__ == "__main__":
    main()
