"""Vectors of the whole pipeline against sentence-transformers, and published scores from its own output.

`python tests/benchmarks/quality.py DATA`, where DATA holds msdocs/, SciFact/, XQuADRetrieval/, STSBenchmark/ and
Banking77Classification/ as MTEB has them. Runs MiniLM in float32 and in bfloat16; writes only to a temporary folder.
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score

from pipeline import read_embeddings
from pipeline.encoders.files.locating import locate

MODEL = "packaged:all-MiniLM-L6-v2"
PASSAGES = 5000
EXPERIMENTS, SAMPLES_PER_LABEL, SEED = 10, 8, 42


def embed(source: Path, work: Path, dtype: str, **keys: str) -> pa.Table:
    """Run the command on one file; return its rows in order of the input."""
    output = work / f"{source.parent.name}-{source.name}-{len(list(work.iterdir()))}"
    settings = [f"encoder.dtype={dtype}", *(f"input.{key}={value}" for key, value in keys.items())]
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["--input", str(source), "--output", str(output), "--model", MODEL, *options]
    subprocess.run([sys.executable, "-m", "jobs.cli", "run", *command], check=True, capture_output=True)
    return pa.concat_tables(read_embeddings(str(output), ["id", "embedding"]))


def vectors(table: pa.Table) -> np.ndarray:
    """The embeddings, float32 [rows, dimension]."""
    return table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def parity(data: Path, work: Path, dtype: str) -> str:
    """Cosines of the first passages to sentence-transformers in float32."""
    from sentence_transformers import SentenceTransformer

    sample = work / f"passages-{dtype}.jsonl"
    with gzip.open(data / "msdocs/corpus.jsonl.gz", "rt") as file:
        lines = list(islice(file, PASSAGES))
    sample.write_text("".join(lines))
    ours = vectors(embed(sample, work, dtype, id="_id"))
    model = SentenceTransformer(str(locate(MODEL, None).path), device="cpu")
    theirs = model.encode([json.loads(line)["text"] for line in lines], normalize_embeddings=True)
    cosines = (ours.astype(np.float64) * theirs).sum(axis=1)
    return f"{len(cosines)} passages: minimum cosine {cosines.min():.7f}, mean {cosines.mean():.7f}"


def retrieval(folder: Path, work: Path, dtype: str, text: str) -> float:
    """nDCG@10 x 100 of a folder with corpus, queries and qrels."""
    documents = embed(folder / "corpus.jsonl.gz", work, dtype, id="_id", text=text)
    queries = embed(folder / "queries.jsonl.gz", work, dtype, id="_id")
    judged = relevance(folder, queries["id"].to_pylist(), documents["id"].to_pylist())
    return 100 * float(ndcg_score(judged, vectors(queries) @ vectors(documents).T, k=10))


def relevance(folder: Path, queries: list[str], documents: list[str]) -> np.ndarray:
    """Judged scores, float64 [queries, documents]."""
    rows, asked = ({name: row for row, name in enumerate(names)} for names in (documents, queries))
    judged = np.zeros((len(asked), len(rows)))
    with (folder / "qrels.tsv").open() as file:
        for entry in csv.DictReader(file, delimiter="\t"):
            judged[asked[entry["query-id"]], rows[entry["corpus-id"]]] = float(entry["score"])
    return judged


def similarity(data: Path, work: Path, dtype: str) -> float:
    """Spearman correlation x 100 of the cosine with the judged similarity."""
    source = data / "STSBenchmark/test.jsonl.gz"
    sides = [vectors(embed(source, work, dtype, text=column)) for column in ("sentence1", "sentence2")]
    with gzip.open(source, "rt") as file:
        scores = [json.loads(line)["score"] for line in file]
    return 100 * float(spearmanr((sides[0] * sides[1]).sum(axis=1), scores).statistic)


def banking77(data: Path, work: Path, dtype: str) -> float:
    """Accuracy x 100: mean of logistic regressions on a few samples a label."""
    folder = data / "Banking77Classification"
    tables = {name: embed(folder / f"{name}.jsonl.gz", work, dtype, id="label") for name in ("train", "test")}
    labels = {name: np.array([int(label) for label in table["id"].to_pylist()]) for name, table in tables.items()}
    order = np.arange(len(labels["train"]))
    scores = []
    for _ in range(EXPERIMENTS):
        np.random.RandomState(SEED).shuffle(order)  # the same permutation each time, as MTEB does
        seen: dict[int, int] = {}
        chosen = []
        for row in order:
            label = labels["train"][row]
            if seen.get(label, 0) < SAMPLES_PER_LABEL:
                seen[label] = seen.get(label, 0) + 1
                chosen.append(row)
        classifier = LogisticRegression(random_state=SEED, max_iter=100)
        classifier.fit(vectors(tables["train"])[chosen], labels["train"][chosen])
        scores.append(classifier.score(vectors(tables["test"]), labels["test"]))
    return 100 * float(np.mean(scores))


SETS = {
    "SciFact nDCG@10 (published 64.51)": lambda data, work, dtype: retrieval(
        data / "SciFact", work, dtype, "'{title} {text}'"
    ),
    "XQuAD nDCG@10 (published 94.36)": lambda data, work, dtype: retrieval(
        data / "XQuADRetrieval", work, dtype, "text"
    ),
    "STSBenchmark Spearman (published 82.03)": similarity,
    "Banking77 accuracy (published 80.04)": banking77,
}


def main() -> None:
    """Print one line a precision and measure; with names as further arguments, only those sets."""
    data, wanted = Path(sys.argv[1]), sys.argv[2:]
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if not wanted or "parity" in wanted:
                print(f"{dtype}: {parity(data, work, dtype)}", flush=True)
            for name, score in SETS.items():
                if not wanted or name.split()[0] in wanted:
                    print(f"{dtype}: {name}: {score(data, work, dtype):.2f}", flush=True)


if __name__ == "__main__":
    main()
