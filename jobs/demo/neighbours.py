"""Three searches over a finished output, by brute force: `python -m jobs.demo.neighbours OUTPUT`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline import encoder_of, read_embeddings

QUERIES = (
    "How do I release a block of memory that was allocated?",
    "Run a script on a remote computer",
    "Draw text in a window",
)
SHOWN = 3


def neighbours(output: str) -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Yield each query with its nearest rows as (cosine, id)."""
    table = pa.concat_tables(read_embeddings(output, ["id", "embedding"], decode=True))
    flat = table["embedding"].combine_chunks().flatten()
    vectors = flat.to_numpy().reshape(len(table), -1)
    queries = encoder_of(output, device="cpu").encode(QUERIES)
    for query, scores in zip(QUERIES, queries @ vectors.T, strict=True):
        best = np.argsort(-scores)[:SHOWN]
        yield query, [(float(scores[row]), table["id"][row].as_py()) for row in best]


def main() -> None:
    """Print the searches."""
    for query, found in neighbours(sys.argv[1]):
        print(f"\n{query}")
        for score, row_id in found:
            print(f"  {score:.3f}  {row_id}")


if __name__ == "__main__":
    main()
